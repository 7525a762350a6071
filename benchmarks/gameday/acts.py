"""The acts of the game day. Each breaks a part and names the failures that the docs predict."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.gameday.processes import NotReady, now_s
from benchmarks.gameday.town import (
    CONTROLS,
    ROUTERS,
    WORKERS,
    Town,
    eventually,
)

RECOVERS_WITHIN_S: Final = 240.0


@dataclass(frozen=True)
class Break:
    """The times of an act, in Unix time. begun_s, broken_s: before and after the break.
    mended_s: after the repair. over_s: after the recovery. recovered_s: duration of the act's
    `recovery`, in seconds.
    """

    begun_s: float
    broken_s: float
    mended_s: float
    over_s: float
    recovered_s: float


@dataclass(frozen=True)
class Act:
    """A break and the failures that `page` of the docs predicts.

    at, lasts: shares of the run. at_least_s: the minimum duration, so that Swapproof notices
    the break in a short run, too. recovery: the state whose time is measured. in_flight_fails:
    requests under way at the break may fail. streams_break_off: started streams may fail.
    Otherwise no request may fail.
    """

    name: str
    at: float
    lasts: float
    page: str
    recovery: str
    play: Callable[[Town, float], Break]
    in_flight_fails: bool = False
    streams_break_off: bool = False
    at_least_s: float = 20.0


def broken(
    break_: Callable[[], object],
    mend: Callable[[], object],
    lasts_s: float,
    *,
    by_itself: Callable[[], bool] | None = None,
    after: Callable[[], bool] | None = None,
) -> Break:
    """Breaks a part, waits, and mends it.

    Args:
        by_itself: whether other parts have taken over, timed from the break.
        after: whether the part has recovered, timed from the mend without by_itself.
    """
    begun_s = now_s()
    break_()
    broken_s = now_s()
    recovered_s = 0.0
    if by_itself is not None:
        eventually(by_itself, RECOVERS_WITHIN_S, "the others did not take over")
        recovered_s = now_s() - broken_s
    time.sleep(max(0.0, lasts_s - (now_s() - broken_s)))
    mend()
    mended_s = now_s()
    if after is not None:
        eventually(after, RECOVERS_WITHIN_S, "it did not recover")
        recovered_s = recovered_s or now_s() - mended_s
    return Break(begun_s, broken_s, mended_s, now_s(), recovered_s)


def kill_worker(town: Town, lasts_s: float) -> Break:
    """Kills the worker of a run that has some samples, but not nearly all. Otherwise the gate
    could decide first, and no worker would continue the run.
    """
    busy = "SELECT r.id, r.lease_owner FROM eval_run r WHERE r.lease_owner IS NOT NULL AND (SELECT count(*) FROM sample s WHERE s.run = r.id) BETWEEN 3 AND r.wanted - 10"  # noqa: E501
    found: list[tuple[str, str]] = []

    def is_busy() -> bool:
        found[:] = [(str(run), str(owner)) for run, owner in town.rows(busy)]
        return bool(found)

    eventually(is_busy, RECOVERS_WITHIN_S, "no eval run is under way")
    run, owner = found[0]
    prefixes = {f"worker-{town.processes.pid(name)}-": name for name in WORKERS}
    name = next(host for prefix, host in prefixes.items() if owner.startswith(prefix))

    def goes_on() -> bool:
        query = "SELECT lease_owner, state FROM eval_run WHERE id = %s"
        ((now, state),) = town.rows(query, run)
        return state == "done" or now not in (None, owner)

    return broken(
        lambda: town.processes.kill(name),
        lambda: town.start(name),
        lasts_s,
        by_itself=goes_on,
    )


def lose_leader(
    break_: Callable[[Town, str], object],
    mend: Callable[[Town, str], object],
) -> Callable[[Town, float], Break]:
    """Builds an act that breaks the leading control plane's host."""

    def play(town: Town, lasts_s: float) -> Break:
        before, name = town.leader()
        return broken(
            lambda: break_(town, name),
            lambda: mend(town, name),
            lasts_s,
            by_itself=lambda: town.leading() not in ("", before),
            after=lambda: town.status(name) == "ok",
        )

    return play


kill_leader = lose_leader(lambda town, name: town.processes.kill(name), Town.start)
freeze_leader = lose_leader(
    lambda town, name: town.processes.signal(name, signal.SIGSTOP),
    lambda town, name: town.processes.signal(name, signal.SIGCONT),
)


def kill_router(town: Town, lasts_s: float) -> Break:
    return broken(
        lambda: town.processes.kill(ROUTERS[0]),
        lambda: town.start(ROUTERS[0]),
        lasts_s,
        after=lambda: town.status(ROUTERS[0]) == "ok",
    )


def restart_routers(town: Town, lasts_s: float) -> Break:  # noqa: ARG001 - an act's signature
    """Restarts the routers one after the other, as several-routers.md recommends."""
    begun_s = now_s()
    for name in ROUTERS:
        code = town.processes.terminate(name)
        if code:
            raise NotReady(f"{name} ended with {code}:\n{town.processes.log_end(name)}")
        town.start(name)
        town.wait_ready(name)
    ended_s = now_s()
    return Break(begun_s, begun_s, ended_s, ended_s, ended_s - begun_s)


def all_ok(town: Town) -> bool:
    return all(town.status(name) == "ok" for name in (*ROUTERS, *CONTROLS))


def kill_primary(town: Town, lasts_s: float) -> Break:
    before = 0

    def promote() -> None:
        nonlocal before
        town.database.promote()
        before = recorded(town)

    return broken(
        town.database.primary.kill,
        promote,
        lasts_s,
        after=lambda: all_ok(town) and recorded(town) > before,
    )


def recorded(town: Town) -> int:
    """Counts the requests in the database. Raises psycopg.Error."""
    ((count,),) = town.rows("SELECT coalesce(sum(requests), 0)::int FROM traffic")
    return int(count)


def cut_database(town: Town, lasts_s: float) -> Break:
    return broken(
        lambda: town.network.cut(ROUTERS[1], "back"),
        lambda: town.network.mend(ROUTERS[1], "back"),
        lasts_s,
        after=lambda: town.status(ROUTERS[1]) == "ok",
    )


def lose_provider(town: Town, lasts_s: float) -> Break:
    """Lets few packets through to the provider, and then no packets."""
    begun_s = now_s()
    town.network.thin("near", "front")
    time.sleep(lasts_s / 2)
    town.network.widen("near", "front")
    cut = broken(
        lambda: town.network.cut("near", "front"),
        lambda: town.network.mend("near", "front"),
        lasts_s / 2,
        after=lambda: all_circuits_closed(town),
    )
    return replace(cut, begun_s=begun_s)


def fail_provider(town: Town, lasts_s: float) -> Break:
    return broken(
        lambda: town.switch("PUT", "*", {"kind": "status", "status": 500}),
        lambda: town.switch("DELETE", "*"),
        lasts_s,
        after=lambda: all_circuits_closed(town),
    )


def all_circuits_closed(town: Town) -> bool:
    """Returns whether the routers' metrics show only closed circuits."""
    return all(state == 0 for name in ROUTERS for state in town.breakers(name))


SEVERAL: Final = "how-to/several-routers.md"
WORKERS_PAGE: Final = "how-to/workers.md"
POSTGRES: Final = "how-to/postgresql.md"
RELIABILITY: Final = "explanation/reliability.md"
ROUTER: Final = "reference/router.md"

ACTS: Final = (
    Act(
        "an eval worker's host is killed in the middle of its samples",
        0.005,
        0.03,
        "how-to/eval-workers.md",
        "another host has the run",
        kill_worker,
    ),
    Act(
        "the leading control plane is killed",
        0.12,
        0.05,
        POSTGRES,
        "another one leads",
        kill_leader,
    ),
    Act(
        "a router and its workers are killed",
        0.20,
        0.06,
        WORKERS_PAGE,
        "it serves again, after its start",
        kill_router,
        in_flight_fails=True,
    ),
    Act(
        "the routers are restarted one after the other",
        0.30,
        0.0,
        SEVERAL,
        "all three",
        restart_routers,
    ),
    Act(
        "the leading control plane is stopped (SIGSTOP) and goes on later",
        0.42,
        0.05,
        POSTGRES,
        "another one leads",
        freeze_leader,
    ),
    Act(
        "the primary is killed, the standby promoted later",
        0.50,
        0.06,
        POSTGRES,
        "all are `ok` after the promotion",
        kill_primary,
        at_least_s=45.0,
    ),
    Act(
        "a router is cut off from the database",
        0.60,
        0.07,
        SEVERAL,
        "it is `ok` after the mend",
        cut_database,
        at_least_s=65.0,
    ),
    Act(
        "a provider gets hardly any packets, then none",
        0.70,
        0.10,
        ROUTER,
        "all circuits are closed after the mend",
        lose_provider,
        streams_break_off=True,
        at_least_s=30.0,
    ),
    Act(
        "a provider answers 500",
        0.84,
        0.08,
        RELIABILITY,
        "all circuits are closed after the mend",
        fail_provider,
        at_least_s=50.0,
    ),
)
