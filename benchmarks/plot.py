"""The plot for the README: saves a second and WAL, for the recorded conversations, 16 sessions at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import stores
from benchmarks.report import of, rate
from benchmarks.results import Run

CASES = {"coding:16": "coding agent, 16 sessions at once", "airline:16": "customer service, 16 sessions at once"}
NAME = "benchmarks"


@dataclass(frozen=True)
class Theme:
    """Colours for one background; the background itself is left out."""

    name: str
    text: str
    others: str
    floor: str
    ours: str


THEMES = (
    Theme("light", text="#1f2328", others="#afb8c1", floor="#6e7781", ours="#0969da"),
    Theme("dark", text="#e6edf3", others="#484f58", floor="#8b949e", ours="#58a6ff"),
)


def draw(run: Run, folder: Path) -> list[Path]:
    """Write the plot as SVG and PNG, light and dark; returns the files. None if no case of it was measured."""
    cases = [case for case in CASES if any(of(run, case, store) for store in run.stores)]
    if not cases:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    # The same measurements give the same files.
    mpl.rcParams["svg.hashsalt"] = NAME
    files = []
    for theme in THEMES:
        figure = _figure(run, cases, theme)
        for suffix in ("svg", "png"):
            file = folder / f"{NAME}-{theme.name}.{suffix}"
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(file, transparent=True, dpi=144, metadata=metadata)
            files.append(file)
    return files


def _figure(run: Run, cases: Sequence[str], theme: Theme) -> Figure:
    shown = [store for store in run.stores if any(of(run, case, store) for case in cases)][::-1]
    figure = Figure(figsize=(10, 0.3 * (len(shown) + 3) * len(cases)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
    axes = figure.subplots(len(cases), 2, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        _bars(row[0], run, case, shown, theme, "saves per second", rate)
        _bars(row[1], run, case, shown, theme, "WAL bytes per byte of conversation", _wal)
        row[0].set_title(CASES[case], loc="left", color=theme.text, fontsize=11, weight="bold")
        row[1].set_yticklabels([])
    return figure


def _wal(result: Any) -> float:
    return float(result.wal_bytes / result.payload_bytes)


def _bars(axes: Any, run: Run, case: str, shown: Sequence[str], theme: Theme, label: str, figure: Any) -> None:
    """Draw a bar per store, the median, with a line from least to most."""
    measured = [[figure(result) for result in of(run, case, store)] for store in shown]
    middle = [median(found) if found else 0 for found in measured]
    spread = [
        [value - min(found, default=0) for value, found in zip(middle, measured, strict=True)],
        [max(found, default=0) - value for value, found in zip(middle, measured, strict=True)],
    ]
    bars = axes.barh(shown, middle, xerr=spread, color=[_colour(store, theme) for store in shown], ecolor=theme.text)
    axes.bar_label(bars, [f" {_number(value)}" if value else " not measured" for value in middle], color=theme.text)
    axes.margins(x=0.18, y=0.02)
    axes.set_xlabel(label, color=theme.text)
    axes.set_xticks([])  # every bar has its figure
    axes.tick_params(colors=theme.text, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _number(value: float) -> str:
    """Return three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _colour(store: str, theme: Theme) -> str:
    if store in stores.OURS:
        return theme.ours
    return theme.floor if store == "floor" else theme.others
