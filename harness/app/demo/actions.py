"""Acts in the demo: proposes its candidates, watches each proposal until all have ended,
raises the traffic of a canary, and makes one model fail online.
`DemoStep` is one story as it stands; `DemoDisplay` prints what happens.
"""

import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from harness.app.demo.environment import FAULT_RATE, FRAGILE, DemoEnvironment, Scenario
from harness.app.demo.traffic import DemoTraffic
from harness.app.demo.user_traffic import phase_text
from harness.app.installation import Installation
from harness.control.canary.status import CanaryStatus, list_canaries
from harness.control.proposals import submission
from harness.control.proposals.comparison import Comparison, load_comparison
from harness.control.proposals.submission import ProposalRequest
from harness.domain.formatting import format_count, format_percent, format_span
from harness.domain.operations.principals import OPERATOR
from harness.domain.proposals.proposal import ProposalPhase

QUIET_RPS, BUSY_RPS, FAILING_RPS = 8.0, 220.0, 80.0
# A slow machine takes some minutes; after this long nothing will come any more.
LONGEST_S = 1200.0
SHOW_EVERY_S = 10.0


@dataclass
class DemoStep:
    """Describes one story of the demo at a moment."""

    story: Scenario
    proposal: str
    comparison: Comparison
    canary: CanaryStatus | None = None
    reported: bool = False

    @property
    def phase(self) -> ProposalPhase:
        return self.comparison.proposal.phase

    @property
    def over(self) -> bool:
        return not self.comparison.proposal.open


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


@dataclass
class DemoActions:
    """What people would do in the demo, step by step."""

    installation: Installation
    stage: DemoEnvironment
    traffic: DemoTraffic
    screen: DemoDisplay
    scenes: list[DemoStep] = field(default_factory=list)

    def propose(self, stories: tuple[Scenario, ...]) -> None:
        ctx = self.installation.context
        for story in stories:
            request = ProposalRequest(story.route, story.candidate, reason="make demo")
            made = submission.create_proposal(ctx, OPERATOR, request)
            self.scenes.append(DemoStep(story, made.id, load_comparison(ctx, made.id)))
            self.screen.say(f"{story.route}: {story.candidate} proposed ({made.id})")

    def watch(self) -> None:
        """Follows the proposals until all have ended, or the time is over."""
        deadline = time.monotonic() + LONGEST_S
        while not all(scene.over for scene in self.scenes):
            for scene in self.scenes:
                if not scene.over:
                    self._refresh(scene)
            self.screen.show(self.scenes)
            if time.monotonic() > deadline:
                self.screen.say(f"given up: not all has ended after {format_span(LONGEST_S)}")
                return
            time.sleep(0.5)

    def _refresh(self, scene: DemoStep) -> None:
        ctx, before = self.installation.context, scene.phase
        scene.comparison = load_comparison(ctx, scene.proposal)
        if scene.phase is ProposalPhase.CANARY or before is ProposalPhase.CANARY:
            canaries = list_canaries(ctx, route=scene.story.route)
            scene.canary = canaries[0] if canaries else None
        if scene.phase is not before:
            self._announce(scene)
        if scene.phase is ProposalPhase.CANARY and before is not ProposalPhase.CANARY:
            self._canary_opened(scene)
        if scene.over:
            self.traffic.rates[scene.story.route] = QUIET_RPS

    def _announce(self, scene: DemoStep) -> None:
        verdict = scene.comparison.verdict
        name = f"{scene.story.route}: {scene.story.candidate}"
        if verdict is not None and not scene.reported:
            scene.reported = True
            self.screen.say(f"{name}: {verdict.words}. {verdict.reason}")
        reason = scene.comparison.proposal.closed_because
        after = f": {reason}" if scene.over and verdict and reason != verdict.reason else ""
        self.screen.say(f"{name} is {scene.comparison.proposal.phase_text}{after}")

    def _canary_opened(self, scene: DemoStep) -> None:
        rate = FAILING_RPS if scene.story.breaks_online else BUSY_RPS
        self.traffic.rates[scene.story.route] = rate
        if not scene.story.breaks_online:
            return
        # From now on the provider answers half of this model's requests with errors.
        model = FRAGILE.partition("/")[2]
        fault = {"kind": "status", "status": 500, "rate": FAULT_RATE}
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.stage.url('sim')}/sim/faults/{model}",
            data=json.dumps(fault).encode(),
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            share = format_percent(FAULT_RATE, 0)
            self.screen.say(f"{model} now fails {share} of its requests online")
