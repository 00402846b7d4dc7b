"""A worker in a process of its own, that tests tell what to do; and that process, as tests see it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent_sessions import AgentSessionsError, LiveAgent, SessionClient, SessionEvent, State

from tests.fixtures.coverage import python_arguments
from tests.fixtures.servers import clean_environment

TIMEOUT = 30.0
SECRET = "of this worker alone"  # noqa: S105 – that is what it is called


class Worker:
    """Runs this module, following agents/AGENT/sessions/SESSION."""

    def __init__(self, address: str, agent_id: str, session_name: str) -> None:
        environment = clean_environment()
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", *python_arguments(__name__), address, agent_id, session_name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment()
            | {"PYTHONPATH": f"{clean_environment()['PYTHONPATH']}:{Path(__file__).parents[2]}"},
        )
        self.told: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def do(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Have it do something; return what it told when it was done."""
        before = len(self.told)
        assert self._process.stdin is not None
        print(json.dumps({"do": what, **arguments}), file=self._process.stdin, flush=True)
        return self.wait_for(lambda told: told["event"] == what, before)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], since: int = 0) -> dict[str, Any]:
        """Wait until it has told such a thing."""

        def found() -> list[dict[str, Any]]:
            return [told for told in self.told[since:] if wanted(told)]

        with self._changed:
            assert self._changed.wait_for(found, TIMEOUT), f"it told only {self.told}"
            return found()[0]

    def wait_for_event(self, event: str, since: int = 0) -> dict[str, Any]:
        return self.wait_for(lambda told: told["event"] == event, since)

    def count(self, event: str) -> int:
        with self._changed:
            return sum(told["event"] == event for told in self.told)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.close()
        try:
            code = self._process.wait(TIMEOUT)
        finally:
            self._process.kill()
            self._reader.join(TIMEOUT)
            self._process.stdout.close()
        assert code == 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.told.append(json.loads(line))
                self._changed.notify_all()


class _Inside:
    """What the process does."""

    def __init__(self, client: SessionClient, agent_id: str, session_name: str) -> None:
        auth = {"type": "api_key", "secret": SECRET}
        state = State(llm_provider="provider of this worker", auth_context=auth)
        self._agent = LiveAgent(
            client, agent_id, session_name, state, on_restore=self._restored, on_failure=self._failed
        )
        self._token = b""
        self._tokens: list[bytes] = []
        self._following: asyncio.Task[None] | None = None

    async def run(self) -> None:
        await self.follow()
        self._tell("following")
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            what = asked.pop("do")
            try:
                await getattr(self, what)(**asked)
                self._tell(what)
            except AgentSessionsError as error:
                self._tell(what, error=type(error).__name__)
        await self._stop_following()

    async def save(self, text: str) -> None:
        self._agent.state.messages.append({"content": text})
        await self._agent.save()

    async def restore(self, revision: int) -> None:
        await self._agent.restore(revision=revision)

    async def follow(self, from_token: int | None = None) -> None:
        """Follow from now on, or again from the token that was kept first."""
        await self._stop_following()
        token = b"" if from_token is None else self._tokens[from_token]
        self._following = asyncio.create_task(self._agent.follow(resume_token=token, keep_token=self._tokens.append))
        await self._agent.following.wait()

    async def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})

    def _restored(self, agent: LiveAgent, event: SessionEvent) -> None:
        self._tell("restored", revision_restored=event.revision)

    def _failed(self, agent: LiveAgent, event: SessionEvent, error: AgentSessionsError) -> None:
        self._tell("failed", error=type(error).__name__)

    def _tell(self, event: str, **facts: Any) -> None:
        state = self._agent.state
        told = {
            "event": event,
            "revision": self._agent.revision,
            "texts": [message["content"] for message in state.messages],
            "provider": state.llm_provider,
            "secret": state.auth_context["secret"],
            **facts,
        }
        print(json.dumps(told), flush=True)


async def _main(address: str, agent_id: str, session_name: str) -> None:
    async with SessionClient(address, timeout=20) as client:
        await _Inside(client, agent_id, session_name).run()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
