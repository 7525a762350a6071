"""Pages of what is in memory, where nothing is signed."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from harness.domain.drift.watch import DriftCheck, DriftWatch
from harness.domain.errors import NotFound
from harness.domain.evals.run import EvalRun, RunState, Sample, Verdict
from harness.domain.operations.access import ApiKey
from harness.domain.operations.alerts import AlertRecord
from harness.domain.operations.audit import AuditEvent
from harness.domain.pagination import (
    FIRST_PAGE,
    Page,
    PageRequest,
    decode_cursor,
    encode_cursor,
)
from harness.domain.privacy.capture import CapturedRequest
from harness.domain.proposals.proposal import Proposal
from harness.domain.reliability.failover import Failover
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target
from harness.ports import RouteRecord, ShadowRecord, SwitchRecord
from harness.store.memory.state import State
from harness.store.rules import no_such_run

T = TypeVar("T")
Place = tuple[Any, ...]


@dataclass(frozen=True)
class Order(Generic[T]):
    """place: of a row, as the SQL store sorts it. falling: which values of it go down; times
    and numbers alone, or all of them.

    named: a cursor is the row's last value, its id. Else it is the whole place.
    """

    place: Callable[[T], Place]
    falling: Sequence[int] = ()
    named: bool = False

    def page(self, rows: Iterable[T], asked: PageRequest) -> Page[T]:
        found = list(rows)
        total = len(found)
        for at in reversed(range(len(self.place(found[0])) if found else 0)):
            found.sort(key=lambda row, at=at: self.place(row)[at], reverse=at in self.falling)  # type: ignore[misc]  # the loop's own
        if asked.after is not None:
            found = self._behind(found, asked.after)
        chosen = found[asked.offset : asked.offset + asked.limit]
        more = len(found) > asked.offset + asked.limit
        return Page(chosen, total, self._cursor(chosen[-1]) if more and chosen else None)

    def _cursor(self, row: T) -> str:
        place = self.place(row)
        return str(place[-1]) if self.named else encode_cursor(place)

    def _behind(self, found: list[T], after: str) -> list[T]:
        if self.named:
            ids = [self.place(row)[-1] for row in found]
            if after not in ids:
                raise NotFound(f"there is no {after} in this list to go on behind")
            return found[ids.index(after) + 1 :]
        if not found:
            return []
        last = decode_cursor(after, [type(value) for value in self.place(found[0])])
        return [row for row in found if self._follows(self.place(row), last)]

    def _follows(self, place: Place, last: Sequence[Any]) -> bool:
        for at, (value, of_last) in enumerate(zip(place, last, strict=True)):
            if value != of_last:
                return bool(value < of_last if at in self.falling else value > of_last)
        return False


PROPOSALS: Final = Order[Proposal](lambda each: (each.created_at, each.id), (0, 1), named=True)
RUNS: Final = Order[EvalRun](lambda each: (each.created_at, each.id), (0, 1), named=True)
SAMPLES: Final = Order[Sample](lambda each: (each.position, each.epoch, each.item))
TARGETS: Final = Order[Target](lambda each: (each.provider, each.model, each.id), named=True)
VERSIONS: Final = Order[RouteRecord](lambda each: (each.route.version,), (0,))
KEYS: Final = Order[ApiKey](lambda each: (each.created_at, each.id), named=True)
SWITCHES: Final = Order[SwitchRecord](
    lambda each: (each.switch.created_at, each.switch.id), (0, 1), named=True
)
SHADOWS: Final = Order[ShadowRecord](
    lambda each: (each.shadow.started_at, each.shadow.id), (0, 1), named=True
)
CHECKS: Final = Order[DriftCheck](
    lambda each: (each.started_at, each.watch, each.number), (0, 2)
)
ALERTS: Final = Order[AlertRecord](lambda each: (each.last_seen, each.id), (0,))
FAILOVERS: Final = Order[Failover](lambda each: (each.at, each.worker, each.number), (0, 2))
CAPTURES: Final = Order[CapturedRequest](lambda each: (each.at, each.id), (0,))
EVENTS: Final = Order[AuditEvent](lambda each: (each.number,), (0,))


class MemoryListings:
    """See harness.ports.Listings."""

    def __init__(self, state: State) -> None:
        self._state = state

    def proposals(
        self,
        asked: PageRequest = FIRST_PAGE,
        *,
        route: str | None = None,
        open_only: bool = False,
    ) -> Page[Proposal]:
        stored = self._state.proposals.values()
        found = (p for p in stored if route in (None, p.route) and (p.open or not open_only))
        return PROPOSALS.page(found, asked)

    def runs(
        self, asked: PageRequest = FIRST_PAGE, *, states: Sequence[RunState] = ()
    ) -> Page[EvalRun]:
        stored = self._state.runs.values()
        return RUNS.page((run for run in stored if not states or run.state in states), asked)

    def samples(self, asked: PageRequest = FIRST_PAGE, *, run: str) -> Page[Sample]:
        if run not in self._state.runs:
            raise no_such_run(run)
        return SAMPLES.page(self._state.samples.get(run, {}).values(), asked)

    def targets(self, asked: PageRequest = FIRST_PAGE) -> Page[Target]:
        return TARGETS.page(self._state.targets.values(), asked)

    def versions(self, asked: PageRequest = FIRST_PAGE, *, route: str) -> Page[RouteRecord]:
        if route not in self._state.routes:
            raise NotFound(f"there is no route {route!r}; `swapgate route list` shows them")
        return VERSIONS.page(self._state.routes[route], asked)

    def keys(self, asked: PageRequest = FIRST_PAGE) -> Page[ApiKey]:
        return KEYS.page(self._state.keys.values(), asked)

    def switches(self, asked: PageRequest = FIRST_PAGE) -> Page[SwitchRecord]:
        return SWITCHES.page(self._state.switches.values(), asked)

    def shadows(
        self, asked: PageRequest = FIRST_PAGE, *, route: str | None = None
    ) -> Page[ShadowRecord]:
        stored = self._state.shadows.values()
        return SHADOWS.page((e for e in stored if route in (None, e.shadow.route)), asked)

    def drift_checks(
        self,
        asked: PageRequest = FIRST_PAGE,
        *,
        target: str | None = None,
        suites: Collection[str] | None = None,
    ) -> Page[tuple[DriftWatch, DriftCheck]]:
        watches = {
            id_: watch
            for id_, watch in self._state.drift_watches.items()
            if target in (None, watch.target) and (suites is None or watch.suite in suites)
        }
        checks = (e for e in self._state.drift_checks.values() if e.watch in watches)
        return CHECKS.page(checks, asked).map(lambda check: (watches[check.watch], check))

    def alerts(
        self, asked: PageRequest = FIRST_PAGE, *, open_only: bool = False
    ) -> Page[AlertRecord]:
        stored = self._state.alerts.values()
        return ALERTS.page((each for each in stored if each.open or not open_only), asked)

    def failovers(
        self,
        asked: PageRequest = FIRST_PAGE,
        *,
        since: datetime,
        route: str | None = None,
        user_hashes: Sequence[str] = (),
    ) -> Page[Failover]:
        found = (
            each
            for each in self._state.failovers.values()
            if each.at >= since
            and route in (None, each.route)
            and (not user_hashes or each.user_hash in user_hashes)
        )
        return FAILOVERS.page(found, asked)

    def captures(
        self, asked: PageRequest = FIRST_PAGE, *, route: str | None = None
    ) -> Page[CapturedRequest]:
        stored = self._state.captures.values()
        return CAPTURES.page((each for each in stored if route in (None, each.route)), asked)

    def events(self, asked: PageRequest = FIRST_PAGE) -> Page[AuditEvent]:
        return EVENTS.page(self._state.events, asked)

    def verdicts(self, ids: Collection[str]) -> Mapping[str, Verdict]:
        stored = self._state.verdicts
        return {id_: stored[id_][0] for id_ in ids if id_ in stored}

    def targets_of(self, ids: Collection[str]) -> Mapping[str, Target]:
        stored = self._state.targets
        return {id_: stored[id_] for id_ in ids if id_ in stored}

    def routes(self) -> Page[Route]:
        stored = self._state.routes
        found = [stored[name][-1].route for name in sorted(stored)]
        return Page(found, len(found))
