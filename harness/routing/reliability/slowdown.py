"""A provider's request for a pause slows its target, and does not stop it. Pure.

One long prompt may exceed a limit that all other requests keep. So requests continue, at most
one in `gap_s`, over all workers of the machine. Each refusal of such a probe doubles the gap,
and a good answer ends the slowdown. The asked-for time is kept in two cases: the provider
reports that no request remains, or it refused two probes of different sizes. In the second
case much smaller requests still go, so that a client with long prompts stops no others.

`router.health.slowdowns` keeps the slowdowns of a worker, and lets requests wait for a turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

# The first pause between two requests to a slowed target.
FIRST_GAP_S: Final = 1.0
# Two probes differ in size if one has at least this many times as many characters.
SIZES_DIFFER: Final = 2.0
# The longest pause that a provider may ask for.
LONGEST_PAUSE_S: Final = 86_400.0


# The headers in which providers report the rest of a rate: OpenAI and many others, Anthropic.
_REMAINING: Final = (
    "x-ratelimit-remaining",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-tokens-remaining",
)


class Turns(NamedTuple):
    """The next turn at a slowed target, for all workers. Times are monotonic seconds."""

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
    # The characters of the smallest and of the largest refused probe; None before the first.
    least: int | None = None
    most: int | None = None

    def rest_s(self, now: float) -> float:
        """Returns the rest of the pause that the provider asked for."""
        return max(0.0, self.until - now)

    def wait_s(self, now: float) -> float:
        """Returns the seconds until a request may go: the rest of a kept pause, else the time
        until the next turn.
        """
        rest_s = self.rest_s(now)
        return rest_s if self.keeps else min(rest_s, max(0.0, self.turns.at - now))

    def with_turns(self, turns: Turns) -> "Slowdown":
        return replace(self, turns=turns)

    def may_go(self, size: int) -> bool:
        """Tells whether a request may take a turn. size: in characters.

        After two refused probes of different sizes, only a request that differs from both in
        size tells more.
        """
        if self.keeps:
            return False
        if self.least is None or self.most is None or self.most < SIZES_DIFFER * self.least:
            return True
        return size * SIZES_DIFFER <= self.least

    def may_wait(self, size: int) -> bool:
        """Tells whether a request may wait for a turn. size: in characters.

        A request that is as large as a refused probe would be refused, too, so its caller
        learns it at once.
        """
        return self.may_go(size) and (self.least is None or size < self.least)


def is_used_up(headers: Mapping[str, str]) -> bool:
    """Tells whether the headers report that no request, or no token, remains.

    headers: look-up ignores case, or names are lower case.
    """
    return any(headers.get(name, "").strip() == "0" for name in _REMAINING)


def start_turns(turns: Turns, now: float, pause_s: float) -> Turns:
    """Begins a slowdown. A slowdown that another worker began continues.

    A gap is at most the pause that the provider asked for.
    """
    if turns.run and now <= turns.at + turns.gap_s:
        return turns
    gap_s = min(FIRST_GAP_S, pause_s)
    return Turns(now + gap_s, gap_s)


def reserve_turn(turns: Turns, now: float) -> Turns:
    """Takes the next turn; the request goes at `turns.at`, or now if that is over."""
    return Turns(max(turns.at, now) + turns.gap_s, turns.gap_s)


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
    *,
    exhausted: bool,
) -> Slowdown:
    """Returns the slowdown after a refusal that was no probe's. The longer pause counts.

    exhausted: the provider reports that no request remains.
    """
    until = now + min(pause_s, LONGEST_PAUSE_S)
    if before is None:
        return Slowdown(until, turns, exhausted)
    return replace(
        before,
        until=max(until, before.until),
        turns=turns,
        keeps=before.keeps or exhausted,
    )


def refuse_probe(
    before: Slowdown,
    turns: Turns,
    size: int,
    now: float,
    pause_s: float | None,
    *,
    exhausted: bool,
) -> Slowdown:
    """Returns the slowdown after a refused probe.

    size: the probe's characters. pause_s: the pause that the provider asks for now, which
    replaces the one before; None if it names no time. exhausted: as for `begin_slowdown`.
    """
    least = size if before.least is None else min(size, before.least)
    most = size if before.most is None else max(size, before.most)
    until = before.until if pause_s is None else now + min(pause_s, LONGEST_PAUSE_S)
    return Slowdown(until, turns, before.keeps or exhausted, least, most)
