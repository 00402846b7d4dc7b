"""The README's first save and restore, as they stand there."""

import json
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.fixtures.servers import ServerFactory, clean_environment

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "127.0.0.1:7450"


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Its grpcurl commands, as a shell would split them."""
    console = next(block for block in blocks("console") if "grpcurl" in block)
    return [shlex.split(command) for command in console.replace("\\\n", " ").split("$ ") if command]


def test_the_first_save_and_restore_with_grpcurl(server: ServerFactory, database_url: str, grpcurl: Path) -> None:
    address = server(database_url=database_url).address
    answers = []
    for program, *arguments in commands():
        assert program == ".venv/bin/grpcurl"
        run = [str(grpcurl), *(address if argument == ADDRESS else argument for argument in arguments)]
        answers.append(json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
    saved, restored = answers
    assert saved["revision"]["revision"] == "1"
    assert restored["state"]["message_history"] == [{"role": "ROLE_USER", "text": "hello"}]


def test_the_first_save_and_restore_in_python(server: ServerFactory, database_url: str) -> None:
    address = server(database_url=database_url).address
    program = blocks("python")[0]
    assert ADDRESS in program
    assert run_python(program.replace(ADDRESS, address)) == "revision 1\n"


def test_following_in_python(server: ServerFactory, database_url: str) -> None:
    address = server(database_url=database_url).address
    lines = next(block for block in blocks("python") if "follow" in block)
    program = f"""
import asyncio

from agent_sessions import LiveAgent, SessionClient

async def main():
    async with SessionClient("{address}") as client:
{textwrap.indent(lines, " " * 8)}
        print(agent.revision, len(agent.state.messages))
        told, tell = asyncio.Event(), agent.on_restore
        agent.on_restore = lambda *arguments: (tell(*arguments), told.set())
        await client.restore("support-bot", "live", revision=1)
        await asyncio.wait_for(told.wait(), 30)
        following.cancel()

asyncio.run(main())
"""
    assert [run_python(program) for _ in range(2)] == ["1 1\nrestored 1\n", "2 1\nrestored 1\n"]


def run_python(program: str) -> str:
    """Return what a program prints, which must end well."""
    run = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, env=clean_environment(), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+?)\)", README.read_text()))))
def test_links_lead_somewhere(link: str) -> None:
    if not link.startswith("http"):
        assert (README.parent / link).exists()
