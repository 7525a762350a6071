"""Slows a target after its provider asked for a pause, instead of stopping it. Pure.

One long prompt may exceed a rate limit although all other requests stay below it. The router
therefore still sends probes: at most one request in `gap_s` seconds, over all workers of the
machine. A refused probe doubles the gap, and a good answer ends the slowdown. A request much
smaller than the refused requests does not wait for a doubled gap. If it succeeds, later
refusals of large requests do not slow the target (`TooLarge`).

The router stops probes for the whole pause in two cases: the provider reports that no request
remains, or it refused two probes of different sizes. In the second case, much smaller requests
still go, so that a client with long prompts does not stop the others.

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

    text: length of the request. answer: estimated length of the longest answer that the client
    allows; 0 if the client sets no limit. Providers count both.
    """

    text: int
    answer: int = 0

    @property
    def total(self) -> int:
        return self.text + self.answer

    def minimum(self, other: "RequestSize | None") -> "RequestSize":
        if other is None:
            return self
        return RequestSize(min(self.text, other.text), min(self.answer, other.answer))

    def is_smaller(self, other: "RequestSize") -> bool:
        return self.text < other.text or self.total < other.total

    def is_much_smaller(self, other: "RequestSize") -> bool:
        """Tells whether the provider may accept this size although it refused the other."""
        return (
            self.text * SIZES_DIFFER <= other.text or self.total * SIZES_DIFFER <= other.total
        )


class Turns(NamedTuple):
    """Keeps the next turn at a slowed target, for all workers. Times are monotonic seconds."""

    at: float = 0.0  # the next free turn
    gap_s: float = 0.0  # the time between two turns; 0 if the target is not slowed

    @property
    def is_slowed(self) -> bool:
        return self.gap_s > 0


@dataclass(frozen=True, slots=True)
class Slowdown:
    """One worker's knowledge of a slowed target."""

    until: float  # the end of the pause that the provider asked for
    turns: Turns
    # The provider reports that no request remains, so the router waits until `until`.
    exhausted: bool = False
    smallest_refused: RequestSize | None = None  # of requests and probes
    smallest_probe: RequestSize | None = None  # None before the first refused probe
    longest_probe: int = 0  # the characters of the longest refused probe's text

    def rest_s(self, now: float) -> float:
        """Returns the rest of the pause that the provider asked for."""
        return max(0.0, self.until - now)

    def wait_s(self, now: float, size: RequestSize | None = None) -> float:
        """Returns the seconds until a request may go: the rest of the pause if the provider
        accepts no request, otherwise the time until the next turn.

        Args:
            size: None for the smallest request.

        A request much smaller than the refused probes does not wait for the doubled gap.
        """
        rest_s = self.rest_s(now)
        if self.exhausted:
            return rest_s
        at = self.turns.at
        if self.smallest_probe is not None and (
            size is None or size.is_much_smaller(self.smallest_probe)
        ):
            at = min(at, at - self.turns.gap_s + FIRST_GAP_S)
        return min(rest_s, max(0.0, at - now))

    def with_turns(self, turns: Turns) -> "Slowdown":
        return replace(self, turns=turns)

    def may_go(self, size: RequestSize) -> bool:
        """Tells whether a request may take a turn.

        After two refused probes of different sizes, only a request much smaller than both may
        go.
        """
        if self.exhausted:
            return False
        if (
            self.smallest_probe is None
            or self.longest_probe < SIZES_DIFFER * self.smallest_probe.text
        ):
            return True
        return size.is_much_smaller(self.smallest_probe)

    def may_wait(self, size: RequestSize) -> bool:
        """Tells whether a request may wait for a turn.

        The provider would refuse a request as large as a refused probe, so such a request does
        not wait.
        """
        return self.may_go(size) and (
            self.smallest_probe is None or size.is_smaller(self.smallest_probe)
        )


class TooLarge(NamedTuple):
    """A provider refused requests of a size, and accepted a much smaller one.

    Until the end of the pause, another refusal of this size is no reason to slow smaller
    requests. until: monotonic seconds.
    """

    refused: RequestSize
    until: float

    def explains(self, size: RequestSize, now: float) -> bool:
        """Tells whether a refused request has the known size, or a larger one."""
        return now < self.until and not size.is_much_smaller(self.refused)


def find_too_large(slowdown: Slowdown, accepted: RequestSize) -> TooLarge | None:
    """Returns the size that caused a slowdown; None if the accepted probe was not much smaller
    than the refused requests.
    """
    refused = slowdown.smallest_refused
    if refused is None or not accepted.is_much_smaller(refused):
        return None
    return TooLarge(refused, slowdown.until)


def start_turns(turns: Turns, now: float, pause_s: float) -> Turns:
    """Begins the turns of a slowdown, or continues those that another worker began.

    The gap is at most the pause that the provider asked for.
    """
    if turns.is_slowed and now <= turns.at + turns.gap_s:
        return turns
    gap_s = min(FIRST_GAP_S, pause_s)
    return Turns(now + gap_s, gap_s)


def reserve_turn(turns: Turns, at: float) -> Turns:
    """Takes a turn at a time; the next one follows after the gap."""
    return Turns(at + turns.gap_s, turns.gap_s)


def widen_turns(turns: Turns, now: float, pause_s: float) -> Turns:
    """Doubles the gap after a refused probe, and cancels the reserved turns."""
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
    """Returns the slowdown after a provider refused a request that was no probe. Of two pauses,
    the longer one counts.

    Args:
        size: of the refused request.
        exhausted: the provider reports that no request remains.
    """
    until = now + min(pause_s, LONGEST_PAUSE_S)
    if before is None:
        return Slowdown(until, turns, exhausted, size)
    return replace(
        before,
        until=max(until, before.until),
        turns=turns,
        exhausted=before.exhausted or exhausted,
        smallest_refused=size.minimum(before.smallest_refused),
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

    Args:
        size: of the probe.
        pause_s: the new pause, which replaces the earlier pause; None if the provider names no
            time.
        exhausted: as for `begin_slowdown`.
    """
    until = before.until if pause_s is None else now + min(pause_s, LONGEST_PAUSE_S)
    return Slowdown(
        until,
        turns,
        before.exhausted or exhausted,
        size.minimum(before.smallest_refused),
        size.minimum(before.smallest_probe),
        max(size.text, before.longest_probe),
    )
