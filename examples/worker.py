"""A worker: says something now and then, saves each time, and follows what an operator restores.

Three terminals, beside each other:

    $ make serve
    $ .venv/bin/python examples/worker.py
    $ .venv/bin/sessionctl show support-bot live --revisions     # what is there
    $ .venv/bin/sessionctl restore support-bot live --revision 2  # the worker goes on from there
    $ .venv/bin/sessionctl watch support-bot                      # what the worker is told

With grpcurl instead of sessionctl:

    $ .venv/bin/grpcurl -plaintext -d '{"agent_id": "support-bot", "session_name": "live", "revision": 2}'
          127.0.0.1:7450 agent_sessions.v1.SessionService/RestoreSession
"""

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent_sessions import (
    AgentSessionsError,
    EventType,
    LiveAgent,
    SessionClient,
    SessionEvent,
    SessionNotFound,
    SessionServiceError,
    State,
)


class ApiKey(NamedTuple):
    """How this worker authenticates. Of it the service is told the type, and nothing else."""

    type: str
    secret: str


def main() -> int:
    """Run the worker until it is interrupted."""
    arguments = parser().parse_args()
    try:
        asyncio.run(work(arguments))
    except (KeyboardInterrupt, asyncio.CancelledError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while the interpreter ends, no other handler counts
        say("interrupted")
    except AgentSessionsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


async def work(arguments: argparse.Namespace) -> None:
    """Go on where the last worker was, and miss nothing that an operator does."""
    end_with_sigterm()
    state = State(llm_provider=arguments.provider, auth_context=ApiKey("api_key", "of this process"))
    tokens = TokenFile(arguments.token_file)
    async with SessionClient(arguments.target) as client, asyncio.TaskGroup() as group:
        agent = LiveAgent(client, arguments.agent, arguments.session, state, on_restore=restored)
        token = tokens.read()
        if token:  # then what was restored since is applied to this
            await begin(agent)
        group.create_task(agent.follow(resume_token=token, keep_token=tokens.write))
        await agent.following.wait()
        if not token:  # after it follows: nothing is missed in between
            await begin(agent)
        while True:
            await asyncio.sleep(arguments.interval)
            await step(agent)


def end_with_sigterm() -> None:
    """Let SIGTERM, however often it comes, cancel the task that runs this."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def cancel(_number: int, _frame: object) -> None:
        if task is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(task.cancel)

    # Not the loop's own way, which ends with the loop: a second signal might come just then.
    signal.signal(signal.SIGTERM, cancel)


async def begin(agent: LiveAgent) -> None:
    """Take the newest state, if there is one."""
    with suppress(SessionNotFound):
        await agent.load()
    say(f"{agent.client_id} goes on from {described(agent)}")


async def step(agent: LiveAgent) -> None:
    """Say something and save it."""
    agent.state.messages.append({"role": "assistant", "content": f"thought {len(agent.state.messages) + 1}"})
    try:
        await agent.save()
        say(f"saved {described(agent)}")
    except SessionServiceError as error:  # the message is still there: the next save has it, too
        say(f"not saved: {error}")


class TokenFile:
    """Where the resume token is kept from one run to the next; None: nowhere, each run begins anew."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> bytes:
        """Return the token; empty when there is none yet."""
        return self._path.read_bytes() if self._path and self._path.exists() else b""

    def write(self, token: bytes) -> None:
        """Put a token in the old one's place in one step."""
        if self._path:
            written = self._path.with_suffix(".new")
            written.write_bytes(token)
            written.replace(self._path)


def restored(agent: LiveAgent, event: SessionEvent) -> None:
    """Tell what an operator did; the agent has the state already."""
    kind = EventType(event.type).name.lower()
    say(f"{kind} by {event.actor}: goes on from {described(agent)}")


def described(agent: LiveAgent) -> str:
    """Return what the agent has now."""
    kept = f"provider {agent.state.llm_provider}, authenticated by {agent.state.auth_context.type}"
    return f"revision {agent.revision}, {len(agent.state.messages)} messages, {kept}"


def say(text: str) -> None:
    """Print a line."""
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    described = argparse.ArgumentParser(description="Says something now and then, saves, and follows restores.")
    described.add_argument("agent", nargs="?", default="support-bot")
    described.add_argument("session", nargs="?", default="live")
    described.add_argument("--target", default="127.0.0.1:7450", metavar="HOST:PORT")
    described.add_argument("--interval", type=float, default=3.0, metavar="SECONDS")
    described.add_argument("--provider", default="example-model", metavar="NAME")
    described.add_argument("--token-file", type=Path, metavar="PATH", help="to go on where the last worker was")
    return described


if __name__ == "__main__":
    sys.exit(main())
