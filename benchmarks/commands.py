"""A process that does as it is told: takes commands as JSON lines on stdin, answers each with one on stdout."""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

Answer = dict[str, Any]


def answer(make: Callable[..., object]) -> None:
    """Answer commands until stdin ends.

    The first one is `make`, with the arguments of `make`; all others are methods of what it made. What libraries
    print goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(_serve(make, sys.stdin, answers))


async def _serve(make: Callable[..., object], commands: TextIO, answers: TextIO) -> None:
    made: object = None
    while line := await asyncio.to_thread(commands.readline):
        asked = json.loads(line)
        command = asked.pop("command")
        try:
            if command == "make":
                made, told = make(**asked), Answer()
            else:
                told = await getattr(made, command)(**asked)
        except Exception as failed:
            traceback.print_exc()
            told = {"failed": f"{type(failed).__name__}: {failed}"}
        print(json.dumps(told), file=answers, flush=True)
