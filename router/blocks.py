"""One rollout's units and blocks (statistics.md 2.1). No I/O, time is given.

One ledger serves all workers of a router, so that a sticky key counts once. A block's counts n
and m are fixed at admission, in assignment order; it closes by admissions and time alone, never
because of an outcome. It is handed out once all its outcomes are in, in order: a slow block
holds those behind it.
"""

from collections import deque
from datetime import datetime
from typing import Final

from harness.domain.observation import Block, UnitRule
from harness.domain.policy import Unit as UnitKind

# A block of a quiet route closes with what it has, so that its data do not wait for hours.
MAX_BLOCK_AGE_S: Final = 60.0
MAX_KEYS: Final = 500_000


class OpenBlock:
    """A block that still admits units, or waits for outcomes."""

    __slots__ = (
        "canary_failures",
        "canary_out",
        "canary_units",
        "closed_at",
        "closed_s",
        "failures",
        "opened_at",
        "opened_s",
        "out",
        "period",
        "units",
        "weight_bps",
    )

    def __init__(self, weight_bps: int, now: float, at: datetime, period: int) -> None:
        self.weight_bps = weight_bps
        self.period = period
        self.opened_s, self.opened_at = now, at
        self.closed_s: float | None = None
        self.closed_at = at
        self.units = self.canary_units = 0
        self.failures = self.canary_failures = 0
        # Units without an outcome yet.
        self.out = self.canary_out = 0

    def count_missing(self) -> int:
        """What is still out becomes a failure, in both arms alike; how many."""
        missing = self.out
        self.failures += self.out
        self.canary_failures += self.canary_out
        self.out = self.canary_out = 0
        return missing


class Unit:
    """One scored unit: a session of a sticky key, or one request."""

    __slots__ = ("admitted", "block", "canary", "fixed", "pending", "shut", "started_s")

    def __init__(self, block: OpenBlock, now: float, *, canary: bool) -> None:
        self.block = block
        self.canary = canary
        self.started_s = now
        self.admitted = 0
        self.pending = 0
        self.shut = False  # no further request joins
        self.fixed = False  # the outcome is in


class Ledger:
    """What one router, with all its workers, has seen of one rollout.

    worker: names whose blocks these are. Workers learn of a new weight within seconds of one
    another: what still comes in at an old one has an open block of its own.
    At most max_keys sticky keys are remembered in a period; later ones are served and not
    scored, in either arm (`unscored`): forgetting a key would toss its coin twice.
    """

    def __init__(
        self, rollout: str, worker: str, rule: UnitRule, *, max_keys: int = MAX_KEYS
    ) -> None:
        self.unscored = 0
        self._rollout = rollout
        self._worker = worker
        self._rule = rule
        self._max_keys = max_keys
        self._period = 1
        self._zero_s: float | None = None  # when the first period began
        self._seen: set[int] = set()
        self._sessions: dict[int, Unit] = {}  # open ones, oldest first
        self._open: dict[int, OpenBlock] = {}  # by weight; mostly one
        self._newest_bps = 0  # weights only rise
        self._waiting: deque[OpenBlock] = deque()  # closed, in order
        self._sequence = 0

    @property
    def idle(self) -> bool:
        """Nothing is open or waiting."""
        return not self._open and not self._waiting and not self._sessions

    def admit(
        self, key: str | int, *, canary: bool, weight_bps: int, now: float, at: datetime
    ) -> Unit | None:
        """A request of this sticky key begins. Its unit; None when it is not scored.

        now: monotonic seconds. at: the same moment, wall time.
        """
        self._begin_period(now, at)
        self._close_aged(now, at)
        if weight_bps > self._newest_bps:
            self._newest_bps = weight_bps
            self._close_all(now, at)
        if self._rule.unit is UnitKind.REQUEST:
            unit = self._new_unit(now, at, canary=canary, weight_bps=weight_bps)
            unit.shut = True
        else:
            # hash() is salted per process: fine for a memory that ends with it.
            found = self._session(hash(key), now, at, canary=canary, weight_bps=weight_bps)
            if found is None:
                return None
            unit = found
        unit.admitted += 1
        unit.pending += 1
        return unit

    def finish(self, unit: Unit, *, failed: bool) -> None:
        """A request of the unit ended. A caller who hung up did not fail."""
        unit.pending -= 1
        if unit.fixed:
            return
        if failed:
            self._fix(unit, failed=True)
        elif not unit.pending and (unit.shut or unit.admitted >= self._rule.session_requests):
            self._fix(unit, failed=False)

    def tick(self, now: float, at: datetime) -> list[Block]:
        """Let time pass; the blocks that are complete now, in order."""
        self._shut_sessions(now - self._rule.session_s)
        self._close_aged(now, at)
        return self._complete(now - self._rule.missing_s)

    def close(self, now: float, at: datetime) -> list[Block]:
        """The router ends, after its last request: every block, with what is known."""
        self._shut_sessions(float("inf"))
        self._close_all(now, at)
        return self._complete(float("inf"))

    def _begin_period(self, now: float, at: datetime) -> None:
        if self._zero_s is None:
            # Wall time is asked once: later jumps of it move no period.
            self._zero_s = now - self._rule.age_s(at)
        period = 1 + int((now - self._zero_s) // self._rule.period_s)
        if period > self._period:
            self._close_all(now, at)
            self._period = period
            self._shut_sessions(float("inf"))
            self._seen.clear()

    def _session(
        self, key: int, now: float, at: datetime, *, canary: bool, weight_bps: int
    ) -> Unit | None:
        unit = self._sessions.get(key)
        if unit is not None:
            joins = (
                unit.admitted < self._rule.session_requests
                and now - unit.started_s < self._rule.session_s
                # The weight rose in between: another arm's outcome is not this unit's.
                and unit.canary is canary
            )
            return unit if joins else None
        if key in self._seen:
            return None
        if len(self._seen) >= self._max_keys:
            self.unscored += 1
            return None
        self._seen.add(key)
        unit = self._new_unit(now, at, canary=canary, weight_bps=weight_bps)
        self._sessions[key] = unit
        return unit

    def _new_unit(self, now: float, at: datetime, *, canary: bool, weight_bps: int) -> Unit:
        block = self._open.get(weight_bps)
        if block is None:
            block = self._open[weight_bps] = OpenBlock(weight_bps, now, at, self._period)
        unit = Unit(block, now, canary=canary)
        block.units += 1
        block.out += 1
        block.canary_units += canary
        block.canary_out += canary
        if block.units >= self._rule.block_size:
            self._close(block, now, at)
        return unit

    def _close_aged(self, now: float, at: datetime) -> None:
        for block in list(self._open.values()):
            if now - block.opened_s >= MAX_BLOCK_AGE_S:
                self._close(block, now, at)

    def _close_all(self, now: float, at: datetime) -> None:
        for block in list(self._open.values()):
            self._close(block, now, at)

    def _close(self, block: OpenBlock, now: float, at: datetime) -> None:
        block.closed_s, block.closed_at = now, at
        self._waiting.append(block)
        del self._open[block.weight_bps]

    def _shut_sessions(self, started_before: float) -> None:
        due = []
        for key, unit in self._sessions.items():
            if unit.started_s > started_before:
                break
            due.append(key)
        for key in due:
            unit = self._sessions.pop(key)
            unit.shut = True
            if not unit.pending and not unit.fixed:
                self._fix(unit, failed=False)

    def _fix(self, unit: Unit, *, failed: bool) -> None:
        unit.fixed = unit.shut = True
        block = unit.block
        if block.out == 0:  # handed out already: the outcome was counted as missing
            return
        block.out -= 1
        block.canary_out -= unit.canary
        if failed:
            block.failures += 1
            block.canary_failures += unit.canary

    def _complete(self, closed_before: float) -> list[Block]:
        done: list[Block] = []
        while self._waiting:
            block = self._waiting[0]
            overdue = block.closed_s is not None and block.closed_s <= closed_before
            if block.out and not overdue:
                break
            self._waiting.popleft()
            missing = block.count_missing()
            self._sequence += 1
            done.append(self._handed_out(block, missing))
        return done

    def _handed_out(self, block: OpenBlock, missing: int) -> Block:
        return Block(
            rollout=self._rollout,
            worker=self._worker,
            sequence=self._sequence,
            weight_bps=block.weight_bps,
            units=block.units,
            canary_units=block.canary_units,
            failures=block.failures,
            canary_failures=block.canary_failures,
            missing=missing,
            opened_at=block.opened_at,
            closed_at=block.closed_at,
            period=block.period,
        )
