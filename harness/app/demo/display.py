"""Shows the demo to its user: a live table of where each route is on a terminal, plain lines
elsewhere, and the thresholds of the demo's policy beside the default's.
"""

import math
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.table import Table

from harness.app.demo.actions import DemoStep
from harness.app.demo.traffic import TrafficCounts
from harness.app.demo.user_traffic import phase_text
from harness.domain.formatting import format_bps, format_count, format_percent
from harness.domain.proposals.policy import Policy

PLAIN_EVERY_S = 10.0


class DemoDisplay:
    """Lines of the story above, a table of where each route is below."""

    def __init__(self, tally: TrafficCounts) -> None:
        self._console = Console(highlight=False)
        self._tally = tally
        self._started = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._last = 0.0

    def live(self) -> AbstractContextManager[object]:
        return self._live if self._console.is_terminal else nullcontext()

    def say(self, words: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(f"[dim]{format_count(elapsed):>5} s[/dim]  {words}", soft_wrap=True)
        sys.stdout.flush()

    def show(self, scenes: Sequence[DemoStep]) -> None:
        if self._console.is_terminal:
            self._live.update(self._table(scenes), refresh=True)
        elif time.monotonic() - self._last >= PLAIN_EVERY_S:
            self._last = time.monotonic()
            parts = [
                f"{scene.story.route}: {phase_text(scene.comparison, scene.canary)}"
                for scene in scenes
                if not scene.over
            ]
            if parts:
                self.say(" · ".join(parts))

    def _table(self, scenes: Sequence[DemoStep]) -> Table:
        table = Table(title=f"{self._tally.total:,} requests, {self._tally.failed} failed")
        for column in ("route", "candidate", "where it stands"):
            table.add_column(column)
        for scene in scenes:
            table.add_row(
                scene.story.route,
                scene.story.candidate,
                phase_text(scene.comparison, scene.canary),
            )
        return table

    def policies(self, demo: Policy, default: Policy) -> None:
        """Shows the demo's thresholds beside those a team should start with."""
        table = Table(title="policy `demo`: smaller, to fit into two minutes")
        for column in ("threshold", "demo", "default"):
            table.add_column(column)
        for name, mine, usual in thresholds(demo, default):
            table.add_row(name, mine, usual)
        self._console.print(table)

    def lines(self, title: str, lines: Sequence[str]) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            self._console.print(f"  {line}", soft_wrap=True)


def thresholds(demo: Policy, default: Policy) -> list[tuple[str, str, str]]:
    def rows(policy: Policy) -> list[tuple[str, str]]:
        gate, canary = policy.gate, policy.canary
        steps = [
            (f"exposures at {format_bps(step.weight_bps)}", str(step.min_exposures))
            for step in canary.steps
        ]
        return [
            ("items per suite, at most", str(gate.n_max or "the whole suite")),
            ("gate's error rate", f"{gate.alpha:g}"),
            *steps,
            (
                "rollback's error rate",
                f"{canary.alpha:g} (log e {-math.log(canary.alpha):.2f})",
            ),
            ("a canary failing less is not harmful", format_percent(canary.p0, 0)),
        ]

    return [
        (name, mine, usual)
        for (name, mine), (_, usual) in zip(rows(demo), rows(default), strict=True)
    ]
