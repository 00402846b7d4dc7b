"""What a replay did, for people and for programs."""

import sys
from dataclasses import dataclass, field
from typing import Any

from agent_sessions.cli import human
from agent_sessions.cli.replay.comparison import Mismatch
from agent_sessions.cli.table import print_fields
from agent_sessions.cli.terminal import printable

_SHOWN = 10
"""Mismatches that are told one by one to people."""


@dataclass(slots=True)
class Totals:
    """Counted while the replay runs."""

    conversations: int = 0
    messages: int = 0
    saves: int = 0
    """Revisions stored."""
    bytes_in: int = 0
    """The encoded messages, each once."""
    bytes_sent: int = 0
    """The messages as protobuf, as the saves carried them."""
    mismatches: list[Mismatch] = field(default_factory=list)


def document(totals: Totals, seconds: float, session_suffix: str) -> dict[str, Any]:
    """Return the summary for programs."""
    return {
        "conversations": totals.conversations,
        "messages": totals.messages,
        "saves": totals.saves,
        "bytes_in": totals.bytes_in,
        "bytes_sent": totals.bytes_sent,
        "seconds": round(seconds, 3),
        "saves_per_second": round(totals.saves / seconds, 1),
        "session_suffix": session_suffix,
        "mismatch_count": len(totals.mismatches),
        "mismatches": [
            {"agent_id": each.agent_id, "session_name": each.session_name, "problem": each.problem}
            for each in totals.mismatches
        ],
    }


def print_summary(totals: Totals, seconds: float, session_suffix: str) -> None:
    """Print the summary for people."""
    suffix = [("session suffix", session_suffix)] if session_suffix else []
    print_fields(
        sys.stdout,
        (
            ("conversations", f"{totals.conversations:,}"),
            ("messages", f"{totals.messages:,}"),
            ("saves (revisions)", f"{totals.saves:,}"),
            ("bytes in", f"{totals.bytes_in:,} ({human.size(totals.bytes_in)})"),
            ("bytes sent", f"{totals.bytes_sent:,} ({human.size(totals.bytes_sent)})"),
            ("seconds", f"{seconds:.1f}"),
            ("saves/s", f"{totals.saves / seconds:.0f}"),
            *suffix,
            ("mismatches", f"{len(totals.mismatches):,}"),
        ),
    )
    for each in totals.mismatches[:_SHOWN]:
        print(f"  {printable(str(each))}")
    if len(totals.mismatches) > _SHOWN:
        print(f"  … and {len(totals.mismatches) - _SHOWN} more (--output json has them all)")
