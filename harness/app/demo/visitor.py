"""Leaves the demo to its visitor once its stories are told: traffic goes on until Ctrl-C, a
swap can be proposed, approved and aborted by hand, and the key `b` breaks a provider and mends
it.
"""

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.app.demo.actions import BUSY_RPS, QUIET_RPS, DemoActions
from harness.app.demo.links import StoryLinks
from harness.app.demo.scenarios import OUTAGE_ROUTE
from harness.app.demo.user_traffic import ProposalWatch
from harness.domain.proposals.proposal import ProposalPhase
from harness.runtime.processes.interruption import interrupts

TICK_S = 0.5
BREAK = "b"
BROKEN = "primary"  # the provider


class Screen(Protocol):
    """Shows the visitor what happens."""

    def say(self, words: str) -> None: ...

    def lines(self, title: str, lines: Sequence[str]) -> None: ...


@dataclass
class Visit:
    """The visitor's time with the running demo."""

    drive: DemoActions
    screen: Screen
    links: StoryLinks
    _broken: bool = False
    _phases: dict[str, ProposalPhase] = field(default_factory=dict)  # by proposal, as said last

    def run(self) -> None:
        """Plays until Ctrl-C."""
        traffic = self.drive.traffic
        traffic.start()
        reads_keys = sys.stdin.isatty()
        story = self.links.your_story(break_key=BREAK if reads_keys else "")
        self.screen.lines("Your turn", story)
        self.screen.say("traffic goes on until Ctrl-C")
        watch = ProposalWatch(self.drive.installation.context, sorted(traffic.rates))
        with interrupts() as over, keys_at_once(terminal=reads_keys):
            while not over.ended:
                if pressed_key(terminal=reads_keys) == BREAK:
                    self.toggle_provider()
                self.follow(watch)
        tally = traffic.tally
        self.screen.say(
            f"ended: {tally.total:,} requests of users in all, {tally.failed:,} failed; the "
            "demo's processes stop, and its folder goes"
        )

    def toggle_provider(self) -> None:
        """Kills the provider under traffic, or starts it again."""
        stage = self.drive.stage
        if self._broken:
            stage.start_provider(BROKEN)
            self.screen.say(f"{OUTAGE_ROUTE}: its provider is back; {BREAK} kills it again")
        else:
            stage.kill(BROKEN)
            self.screen.say(
                f"{OUTAGE_ROUTE}: its provider is killed, and its backup answers, as "
                f"{self.links.page('providers')} shows; {BREAK} brings it back"
            )
        self._broken = not self._broken

    def follow(self, watch: ProposalWatch) -> None:
        """Says what has changed of the proposals, with the visitor's next step; a canary gets
        enough users to decide within a minute.
        """
        for line in watch.refresh():
            self.screen.say(line)
        rates = self.drive.traffic.rates
        phases = watch.phases()
        for route in rates:
            busy = phases.get(route) is ProposalPhase.CANARY
            rates[route] = BUSY_RPS if busy else QUIET_RPS
        for route, phase in phases.items():
            proposal = watch.open[route]
            if self._phases.get(proposal) is not phase:
                self._phases[proposal] = phase
                next_step = self.links.of_phase(route, phase, proposal)
                self.screen.say(f"{route}: {phase.value.replace('_', ' ')}: {next_step}")


def pressed_key(*, terminal: bool) -> str:
    """The key that was pressed within the last half second, or nothing."""
    if not terminal:
        time.sleep(TICK_S)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], TICK_S)
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace").lower() if ready else ""


@contextlib.contextmanager
def keys_at_once(*, terminal: bool) -> Iterator[None]:
    """Meanwhile a terminal gives each key as it is pressed, without Return and unseen."""
    if not terminal:
        yield
        return
    import termios  # noqa: PLC0415 - not on every system
    import tty  # noqa: PLC0415 - as above

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
