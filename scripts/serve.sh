#!/bin/sh
# Runs the server in the foreground and, once it answers, tells what to type next.
# Usage: LISTEN=HOST:PORT OPS_LISTEN=HOST:PORT DATA_DIR=DIR scripts/serve.sh BIN
set -eu
bin=$1
begin=$(date +%s)

"$bin/session-service" serve --listen "$LISTEN" --ops-listen "$OPS_LISTEN" --data-dir "$DATA_DIR" &
server=$!
# Ctrl-C reaches the server by itself: it drains, stops PostgreSQL and ends.
trap : INT
trap 'kill -TERM "$server" 2>/dev/null || :' TERM

until "$bin/grpcurl" -plaintext -max-time 2 "$LISTEN" grpc.health.v1.Health/Check 2>/dev/null | grep -q '"SERVING"'; do
    kill -0 "$server" 2>/dev/null || { wait "$server" && exit 1 || exit $?; }
    sleep 0.2
done
cat <<TEXT

Ready after $(($(date +%s) - begin)) s. In another terminal, here:

  $bin/grpcurl -plaintext -d '{"agent_id": "support-bot", "session_name": "first", "snapshot": {"message_history": [{"role": "ROLE_USER", "text": "hello"}]}}' \\
      $LISTEN agent_sessions.v1.SessionService/SaveSession
  $bin/grpcurl -plaintext -d '{"agent_id": "support-bot", "session_name": "first"}' $LISTEN agent_sessions.v1.SessionService/RestoreSession
  $bin/sessionctl --target $LISTEN list
  $bin/sessionctl --target $LISTEN watch support-bot
  make demo

Stop it with Ctrl-C; the data stay in $DATA_DIR.

TEXT
# A signal ends the wait, not the server.
while kill -0 "$server" 2>/dev/null; do
    wait "$server" && code=0 || code=$?
done
exit "${code:-0}"
