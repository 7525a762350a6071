"""A provider's request for a pause slows its target, and does not stop it. Pure.

One long prompt may exceed a limit that all other requests keep. So requests continue, at most
one in `gap_s`, over all workers of the machine. Each refusal of such a probe doubles the gap,
and a good answer ends the slowdown. A request much smaller than the refused ones does not wait
for a doubled gap. If it succeeds, later refusals of large requests slow the target no more
(`TooLarge`). The asked-for time is kept in two cases: the provider
reports that no request remains, or it refused two probes of different sizes. In the second
case much smaller requests still go, so that a client with long prompts stops no others.

`router.health.slowdowns` keeps the slowdowns of a worker, and lets requests wait for a turn.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

# The first pause between two requests to a slowed target.
FIRST_GAP_S: Final = 1.0
# Two probes differ in size if one's text has at least this many times as many characters.
SIZES_DIFFER: Final = 2.0
# The longest pause that a provider may ask for.
LONGEST_PAUSE_S: Final = 86_400.0


class RequestSize(NamedTuple):
    """The part of a rate limit that a request may use, in characters.

    text: of the request. answer: about as many as the client lets the model write; 0 if the
    client sets no limit. Providers count both.
    """

    text: int
    answer: int = 0

    @property
    def total(self) -> int:
        return self.text + self.answer

    def least(self, other: "RequestSize | None") -> "RequestSize":
        if other is None:
            return self
        return RequestSize(min(self.text, other.text), min(self.answer, other.answer))

    def is_smaller(self, other: "RequestSize") -> bool:
        return self.text < other.text or self.total < other.total

    def is_much_smaller(self, other: "RequestSize") -> bool:
        """Tells whether a refusal of the other size says nothing about this size."""
        return (
            self.text * SIZES_DIFFER <= other.text or self.total * SIZES_DIFFER <= other.total
        )


class Turns(NamedTuple):
    """Keeps the next turn at a slowed target, for all workers. Times are monotonic seconds."""

    at: float = 0.0  # the next free turn
    gap_s: float = 0.0  # the time between two turns; 0 if the target is not slowed

    @property
    def run(self) -> bool:
        return self.gap_s > 0


@dataclass(frozen=True, slots=True)
class Slowdown:
    """What one worker knows of a slowed target."""

    until: float  # the end of the pause that the provider asked for
    turns: Turns
    # The provider reports that no request remains: none goes before `until`.
    keeps: bool = False
    # The size of the smallest refused request, and of the smallest refused probe.
    refused: RequestSize | None = None
    least: RequestSize | None = None  # None before the first refused probe
    most: int = 0  # the characters of the longest refused probe's text

    def rest_s(self, now: float) -> float:
        """Returns the rest of the pause that the provider asked for."""
        return max(0.0, self.until - now)

    def wait_s(self, now: float, size: RequestSize | None = None) -> float:
        """Returns the seconds until a request may go: the rest of a kept pause, else the time
        until its next turn.

        size: None for the smallest request. A much smaller request than the refused probes
        need not wait for the gap that they doubled.
        """
        rest_s = self.rest_s(now)
        if self.keeps:
            return rest_s
        at = self.turns.at
        if self.least is not None and (size is None or size.is_much_smaller(self.least)):
            at = min(at, at - self.turns.gap_s + FIRST_GAP_S)
        return min(rest_s, max(0.0, at - now))

    def with_turns(self, turns: Turns) -> "Slowdown":
        return replace(self, turns=turns)

    def may_go(self, size: RequestSize) -> bool:
        """Tells whether a request may take a turn.

        After two refused probes of different sizes, only a request that differs from both in
        size tells more.
        """
        if self.keeps:
            return False
        if self.least is None or self.most < SIZES_DIFFER * self.least.text:
            return True
        return size.is_much_smaller(self.least)

    def may_wait(self, size: RequestSize) -> bool:
        """Tells whether a request may wait for a turn.

        A request that is as large as a refused probe would be refused, too, so its caller
        learns it at once.
        """
        return self.may_go(size) and (self.least is None or size.is_smaller(self.least))


class TooLarge(NamedTuple):
    """A provider refused requests of a size, and accepted a much smaller one.

    Until the end of the pause that it asked for, a refusal of such a size says nothing of
    smaller requests. until: monotonic seconds.
    """

    refused: RequestSize
    until: float

    def explains(self, size: RequestSize, now: float) -> bool:
        """Tells whether a refused request has the known size, or a larger one."""
        return now < self.until and not size.is_much_smaller(self.refused)


def find_too_large(slowdown: Slowdown, accepted: RequestSize) -> TooLarge | None:
    """Returns the size that a slowdown was about; None if the accepted probe was as large."""
    refused = slowdown.refused
    if refused is None or not accepted.is_much_smaller(refused):
        return None
    return TooLarge(refused, slowdown.until)


def start_turns(turns: Turns, now: float, pause_s: float) -> Turns:
    """Begins a slowdown. A slowdown that another worker began continues.

    A gap is at most the pause that the provider asked for.
    """
    if turns.run and now <= turns.at + turns.gap_s:
        return turns
    gap_s = min(FIRST_GAP_S, pause_s)
    return Turns(now + gap_s, gap_s)


def reserve_turn(turns: Turns, at: float) -> Turns:
    """Takes a turn at a time; the next one follows after the gap."""
    return Turns(at + turns.gap_s, turns.gap_s)


def widen_turns(turns: Turns, now: float, pause_s: float) -> Turns:
    """Doubles the gap, after a refused probe. The reserved turns before are void."""
    gap_s = max(FIRST_GAP_S, 2 * turns.gap_s)
    gap_s = min(gap_s, pause_s) if pause_s > 0 else gap_s
    return Turns(now + gap_s, gap_s)


def begin_slowdown(
    before: Slowdown | None,
    turns: Turns,
    now: float,
    pause_s: float,
    size: RequestSize,
    *,
    exhausted: bool,
) -> Slowdown:
    """Returns the slowdown after a refusal that was no probe's. The longer pause counts.

    size: of the refused request. exhausted: the provider reports that no request remains.
    """
    until = now + min(pause_s, LONGEST_PAUSE_S)
    if before is None:
        return Slowdown(until, turns, exhausted, size)
    return replace(
        before,
        until=max(until, before.until),
        turns=turns,
        keeps=before.keeps or exhausted,
        refused=size.least(before.refused),
    )


def refuse_probe(
    before: Slowdown,
    turns: Turns,
    size: RequestSize,
    now: float,
    pause_s: float | None,
    *,
    exhausted: bool,
) -> Slowdown:
    """Returns the slowdown after a refused probe.

    size: the probe's. pause_s: the pause that the provider asks for now, which
    replaces the one before; None if it names no time. exhausted: as for `begin_slowdown`.
    """
    until = before.until if pause_s is None else now + min(pause_s, LONGEST_PAUSE_S)
    return Slowdown(
        until,
        turns,
        before.keeps or exhausted,
        size.least(before.refused),
        size.least(before.least),
        max(size.text, before.most),
    )
