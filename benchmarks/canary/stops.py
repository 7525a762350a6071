"""How soon the other workers follow the first one that stops a canary, also in the dark.

Each stop takes a canary of its own at one half, so that requests come often enough to see when
the last one was sent to it. In the dark the control plane is killed and PostgreSQL stopped.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.canary.load import Load, pouring
from benchmarks.canary.place import Place, placed
from benchmarks.canary.scripted import opened
from benchmarks.canary.sent_requests import SentRequest
from benchmarks.canary.wall_time import TooLate, now_s, until
from benchmarks.faults.figures import p99
from tests.support.store.postgres import started, stop_server

STEP: Final = {"weight_bps": 5000, "min_exposures": 1_000_000}
ITEMS: Final = 60
HEALTHY_S: Final = 2.0
STOPS_WITHIN_S: Final = 30.0
AFTER_S: Final = 2.0
CONFIRMED_WITHIN_S: Final = 120.0


@dataclass(frozen=True)
class Stop:
    """follow_s: of each other worker, from the first one's stop until the last canary request
    that was sent and that it took; 0 where none was. late: such requests. to_stop_s: from the
    break to the stop. errors: that any user got.
    """

    follow_s: Sequence[float]
    late: int
    to_stop_s: float
    errors: int


@dataclass(frozen=True)
class Stops:
    """confirmed_s: from the database's and the control plane's return until every canary that
    was stopped in the dark had weight 0 in the routing table.
    """

    lit: Sequence[Stop]
    dark: Sequence[Stop]
    confirmed_s: float | None


def run(*, workers: int, rps: float, lit: int, dark: int) -> Stops:
    routes = {f"stop-{number}": f"breaks-{number}" for number in range(lit + dark)}
    rules = {"gate": {"n_max": ITEMS}, "canary": {"unit": "request", "steps": [STEP]}}
    names = [*routes]
    with (
        tempfile.TemporaryDirectory(prefix="swapgate-live-") as folder,
        _postgres() as (url, leave, return_),
        placed(Path(folder), routes, rules, workers=workers, database_url=url) as place,
        pouring(place.port, place.key, rps) as load,
    ):
        place.rollouts.update(opened(place.installation, routes))
        place.start("control", "router")
        seen = [stop(place, load, route) for route in names[:lit]]
        if not dark:
            return Stops(seen, (), None)
        place.site.kill("control")
        leave()
        unseen = [stop(place, load, route) for route in names[lit:]]
        return_()
        place.start("control")
        back = now_s()
        try:
            gone = until(
                lambda: not any(place.weight_bps(route) for route in names[lit:]),
                CONFIRMED_WITHIN_S,
                0.1,
            )
        except TooLate:
            return Stops(seen, unseen, None)
        return Stops(seen, unseen, gone - back)


@contextmanager
def _postgres() -> Iterator[tuple[str, Callable[[], None], Callable[[], object]]]:
    """Its address, what stops it and what starts it again."""
    # PostgreSQL runs as a user of its own, to whom another folder may be closed.
    home = Path(tempfile.mkdtemp(prefix="swapgate-live-pg-"))
    try:
        server = started(home)
        url = server.get_uri(database="postgres", driver="psycopg")
        yield url, server.stop, lambda: started(home)
    finally:
        stop_server(home)


def stop(place: Place, load: Load, route: str) -> Stop:
    """Break the route's candidate under load, and wait until a worker stops it."""
    began = now_s()
    load.route = route
    time.sleep(HEALTHY_S)
    place.break_(place.routes[route], {"kind": "status", "status": 400})
    broke = now_s()
    kept: list[Mapping[str, object]] = []

    def stopped() -> bool:
        found = place.local_stop(route)
        kept.extend([found] if found else [])
        return found is not None

    until(stopped, STOPS_WITHIN_S)
    time.sleep(AFTER_S)
    load.route = ""
    time.sleep(1.0)
    return _measure_stop(load.since(began, route), kept[0], broke)


def _measure_stop(
    all_: Sequence[SentRequest], kept: Mapping[str, object], broke: float
) -> Stop:
    at = datetime.fromisoformat(str(kept["at"])).timestamp()
    first = str(kept["worker"])
    others = {request.worker for request in all_ if request.worker} - {first}
    late = [request for request in all_ if request.canary and request.sent_s > at]
    follow = [
        max((request.sent_s for request in late if request.worker == worker), default=at) - at
        for worker in sorted(others)
    ]
    errors = sum(request.harm is not None for request in all_)
    return Stop(follow, len(late), at - broke, errors)


def stops_row(what: str, stops: Sequence[Stop]) -> str:
    follow = sorted(seconds for stop in stops for seconds in stop.follow_s)
    middle = follow[len(follow) // 2]
    return (
        f"| {what} | {len(stops)} | {len(follow)} | {middle * 1000:.0f} ms | "
        f"{p99(follow) * 1000:.0f} ms | {follow[-1] * 1000:.0f} ms | "
        f"{sum(case.late for case in stops)} | "
        f"{max(case.to_stop_s for case in stops):.2f} s | "
        f"{sum(case.errors for case in stops)} |"
    )


HEADS: Final = (
    "| control plane and database | stops | workers that followed | p50 | p99 | max | canary "
    "requests sent later | break to stop, at most | errors for users |"
)
