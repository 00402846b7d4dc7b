#!/bin/sh
# Runs a command and tells how long it took. Usage: scripts/timed.sh "what" COMMAND [ARGUMENT …]
what=$1
shift
begin=$(date +%s)
"$@"
code=$?
echo "$what: $(($(date +%s) - begin)) s"
exit $code
