"""Figures: what was measured, what it should be, and how noisy the machine was."""

import dataclasses
import json
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import Literal

from rich import console, table

RESULT = pathlib.Path("build/bench.json")
EXPECTED = {
    "exec": ("exec_bus_p50", "exec_bus_c64", "exec_http_p50", "exec_http_c64"),
    "toolbox": ("first_byte_p50", "stream_kept", "stream_live", "upload", "download", "calls_beside"),
    "gateway": ("gateway_trivial_c64",),
    "pipeline": ("share_solo_p50", "share_fifty_p95"),
    "daemon": ("daemon_start", "daemon_memory", "daemon_idle_cpu"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is None when it could not be measured; `note` says what lies behind it."""

    name: str
    value: float | None
    goal: float
    unit: str
    better: Literal["lower", "higher"]
    note: str = ""

    @property
    def is_met(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


class Report:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def broke(self, group: str, error: BaseException) -> None:
        """Stand in for the rows of a group that could not be measured."""
        have = {row.name for row in self.rows}
        for name in EXPECTED[group]:
            if name not in have:
                self.add(Row(name, None, 0.0, "", "lower", f"not measured: {type(error).__name__}: {error}"))

    def write(self) -> None:
        RESULT.parent.mkdir(exist_ok=True)
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        known |= {
            row.name: {f: getattr(row, f) for f in ("value", "goal", "unit", "better", "note")}
            for row in self.rows
        }
        RESULT.write_text(json.dumps(known, indent=1) + "\n")

    def print(self) -> None:
        shown = table.Table(title=f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", expand=False)
        for heading in ("figure", "value", "goal", "", "behind it"):
            shown.add_column(heading)
        for row in self.rows:
            value = "-" if row.value is None else f"{row.value:.3g} {row.unit}"
            sign = "≤" if row.better == "lower" else "≥"
            verdict = "not measured" if row.value is None else ("met" if row.is_met else "MISSED")
            shown.add_row(row.name, value, f"{sign} {row.goal:g}", verdict, row.note)
        console.Console(width=150).print(shown)

    @property
    def exit_code(self) -> int:
        return int(any(row.value is None for row in self.rows))


def percentile(samples: Sequence[float], p: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(p / 100 * len(ordered)))]


def spread(samples: Sequence[float]) -> str:
    """How far the rounds of one figure lay apart: the machine's noise."""
    return f"rounds {min(samples):.2f} to {max(samples):.2f}, median {statistics.median(samples):.2f}"
