"""`python -m benchmarks`: run us and the peers against the same PostgreSQL, and print a table."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases, plan, report, stores
from benchmarks.database import cluster
from benchmarks.processes import ROOT, ProcessFailed
from benchmarks.results import Run

RESULTS = Path(".build/benchmarks/results.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        run = Run.read(arguments.report) if arguments.report else asyncio.run(_interruptible(_run(arguments)))
    except asyncio.CancelledError:
        print("benchmarks: stopped", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError) as wrong:
        print(f"benchmarks: {wrong}", file=sys.stderr)
        return 2
    except ProcessFailed as failed:
        print(f"benchmarks: {failed}", file=sys.stderr)
        return 1
    print("\n" + report.text(run))
    if arguments.publish:
        _publish(run)
    return 0


async def _interruptible(run: Coroutine[Any, Any, Run]) -> Run:
    """Let SIGTERM and ctrl-C end a run the same way: everything that it started is stopped first."""
    task = asyncio.ensure_future(run)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def _run(arguments: argparse.Namespace) -> Run:
    chosen = arguments.stores.split(",")
    if unknown := set(chosen) - set(stores.STORES):
        raise ValueError(f"no such store: {', '.join(sorted(unknown))}; there are {', '.join(stores.STORES)}")
    planned = plan.Plan(
        stores=chosen,
        cases=_cases(arguments),
        rounds=arguments.rounds,
        corpus=arguments.corpus,
        limit=arguments.limit,
        synthetic_messages=arguments.synthetic_messages,
        prefill=arguments.prefill,
        prefill_stores=plan.default_prefill_stores(chosen),
    )
    begin = time.monotonic()
    async with cluster(arguments.database_url) as postgres:
        run = await plan.carry_out(
            planned, postgres, arguments.results, lambda line: print(line, flush=True), append=arguments.append
        )
    print(f"{time.monotonic() - begin:.0f} s; {arguments.results} holds every measurement")
    return run


def _cases(arguments: argparse.Namespace) -> list[cases.Case]:
    """Return the cases; without recorded conversations only those that need none, unless asked for by name."""
    if arguments.cases:
        return cases.parse(arguments.cases)
    found = cases.parse(cases.DEFAULT)
    if arguments.corpus is None:
        print("no recorded conversations: SESSION_CORPUS is not set, see docs/benchmarks.md", flush=True)
        found = [case for case in found if case.work in (cases.SYNTHETIC, cases.LONG, *cases.ALONE)]
    return found


def _publish(run: Run) -> None:
    from benchmarks import plot  # matplotlib is only in the benchmarks' environment

    documents = ROOT / "docs"
    (documents / "benchmarks-results.md").write_text(report.document(run))
    for file in plot.draw(run, documents / "images"):
        print(f"wrote {file.relative_to(ROOT)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    folder = os.environ.get("SESSION_CORPUS")
    add = parser.add_argument
    add("--stores", default=",".join(stores.STORES), help="comma-separated; default all: %(default)s")
    add("--cases", help=f"comma-separated {cases.SYNTAX}; default {cases.DEFAULT}")
    add("--rounds", type=int, default=3, help="how often everything is measured; default %(default)s")
    add(
        "--corpus", type=Path, default=Path(folder) if folder else None, help="folder of conversations [SESSION_CORPUS]"
    )
    add("--limit", type=int, default=0, help="conversations of each file; default all")
    add("--synthetic-messages", type=int, default=4000, help="of synthetic cases; default %(default)s")
    add("--prefill", type=int, default=300_000, help="saves in prefilled tables; default %(default)s")
    add("--database-url", help="a PostgreSQL where databases may be created; default one of its own")
    add("--results", type=Path, default=RESULTS, help="where measurements are kept; default %(default)s")
    add("--append", action="store_true", help="keep what the results' file holds, and add rounds; default: begin anew")
    add("--report", type=Path, metavar="RESULTS", help="measure nothing, report what is in this file")
    add("--publish", action="store_true", help="write docs/benchmarks-results.md and docs/images/benchmarks-*")
    return parser


if __name__ == "__main__":
    sys.exit(main())
