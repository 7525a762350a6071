"""Shows the demo to its user: lines with the time as things happen, and every ten seconds one
that says where each route is.
"""

import sys
import time
from collections.abc import Sequence

from rich.console import Console

from harness.app.demo.actions import DemoStep
from harness.app.demo.user_traffic import phase_text
from harness.domain.formatting import format_count

SHOW_EVERY_S = 10.0


class DemoDisplay:
    """Prints the demo's lines."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._started = time.monotonic()
        self._last = 0.0

    def say(self, words: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(f"[dim]{format_count(elapsed):>5} s[/dim]  {words}", soft_wrap=True)
        sys.stdout.flush()

    def show(self, scenes: Sequence[DemoStep]) -> None:
        if time.monotonic() - self._last < SHOW_EVERY_S:
            return
        self._last = time.monotonic()
        parts = [
            f"{scene.story.route}: {phase_text(scene.comparison, scene.canary)}"
            for scene in scenes
            if not scene.over
        ]
        if parts:
            self.say(" · ".join(parts))

    def lines(self, title: str, lines: Sequence[str]) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            self._console.print(f"  {line}", soft_wrap=True)
