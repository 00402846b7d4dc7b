"""The command: several conversations at once, progress, summary, exit code."""

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from agent_sessions.cli import output
from agent_sessions.cli.failures import CommandFailed, ExitCode
from agent_sessions.cli.progress import Progress
from agent_sessions.cli.replay.conversation import ConversationReplay
from agent_sessions.cli.replay.corpus import Conversation, Names
from agent_sessions.cli.replay.corpus import read_corpus as _read
from agent_sessions.cli.replay.summary import Totals, document, print_summary
from agent_sessions.client import SessionClient


def read_corpus(arguments: argparse.Namespace) -> None:
    """Check every file, and leave the conversations in `arguments.corpus`."""
    suffix = _unique_suffix() if arguments.unique else arguments.session_suffix
    arguments.corpus = _read(arguments.sources, Names(arguments.agent_prefix, suffix))


async def replay(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """Replay what `read_corpus` read."""
    totals, corpus = Totals(), arguments.corpus
    begin = time.monotonic()
    with Progress(sys.stderr, corpus.message_count, "saves", quiet=arguments.quiet) as progress:
        await _run_all(client, iter(corpus), totals, progress.advance, arguments.concurrency)
    seconds = time.monotonic() - begin
    if arguments.output == "json":
        output.print_json(document(totals, seconds, corpus.names.session_suffix))
    else:
        print_summary(totals, seconds, corpus.names.session_suffix)
    return ExitCode.DATA_LOSS if totals.mismatches else ExitCode.FINE


async def _run_all(
    client: SessionClient,
    waiting: Iterator[Conversation],
    totals: Totals,
    on_save: Callable[[], None],
    concurrency: int,
) -> None:
    """Replay `concurrency` conversations at a time; the first failure ends the others and is raised."""

    async def worker() -> None:
        # Shared by the workers: whoever is free takes the next one.
        for conversation in waiting:
            await ConversationReplay(client, conversation, totals, on_save).run()

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(worker())
    except* CommandFailed as failures:
        first = failures.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        failed = first
    else:
        return
    raise failed


def _unique_suffix() -> str:
    return f"-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
