"""A program: many processes that save to the same few sessions at the same time.

    python -m tests.faults.contenders '{"addresses": [...], "processes": 16, "saves": 20, "sessions": 3}'

Prints one JSON list of what each save was and how it ended. The processes are
forked after the imports, before anything of gRPC runs.
"""

import asyncio
import json
import multiprocessing
import random
import sys
import time
import uuid
from multiprocessing.synchronize import Barrier
from typing import Any

from agent_sessions import RevisionMismatch, SessionClient, SessionServiceError

from tests.faults.conversations import AGENT
from tests.fixtures.conversations import conversation

TIMEOUT = 60.0


def main(task: dict[str, Any]) -> None:
    """Run the processes, and print what they report."""
    fork = multiprocessing.get_context("fork")
    barrier, reports = fork.Barrier(task["processes"]), fork.SimpleQueue()
    family = [fork.Process(target=_contend, args=(n, task, barrier, reports)) for n in range(task["processes"])]
    for process in family:
        process.start()
    attempts = [attempt for _ in family for attempt in reports.get()]
    for process in family:
        process.join()
    print(json.dumps(attempts))


def _contend(number: int, task: dict[str, Any], barrier: Barrier, reports: Any) -> None:
    reports.put(asyncio.run(_saves(number, task, barrier)))


async def _saves(number: int, task: dict[str, Any], barrier: Barrier) -> list[dict[str, Any]]:
    address = task["addresses"][number % len(task["addresses"])]
    choose = random.Random(number)  # noqa: S311 - no secret
    heads: dict[str, int] = {}
    attempts = []
    async with SessionClient(address, timeout=TIMEOUT) as client:
        await client.list_sessions(AGENT).page()  # connects
        barrier.wait(TIMEOUT)
        for _ in range(task["saves"]):
            session_name = f"session {choose.randrange(task['sessions'])}"
            expected = heads.get(session_name, 0) if choose.random() < 0.5 else None
            attempt = await _save(client, session_name, expected)
            heads[session_name] = attempt["head"] or heads.get(session_name, 0)
            attempts.append(attempt | {"process": number, "address": address})
    return attempts


async def _save(client: SessionClient, session_name: str, expected: int | None) -> dict[str, Any]:
    text = str(uuid.uuid4())
    attempt: dict[str, Any] = {"session_name": session_name, "text": text, "expected": expected}
    attempt |= {"revision": None, "error": None, "head": None, "begin": time.monotonic()}
    try:
        saved = await client.save(AGENT, session_name, conversation("hello", text), expected_revision=expected)
    except RevisionMismatch as mismatch:
        attempt |= {"error": "REVISION_MISMATCH", "head": mismatch.current_revision}
    except SessionServiceError as error:
        attempt |= {"error": f"{error.code.name} {error.reason}"}
    else:
        attempt |= {"revision": saved.revision.revision, "head": saved.revision.revision}
    return attempt | {"end": time.monotonic()}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
