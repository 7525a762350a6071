"""Plays the acts in order, inside the run's namespaces, and prints the tables."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.gameday import verdict
from benchmarks.gameday.acts import ACTS, Act, Break
from benchmarks.gameday.processes import Network, NotReady, Processes, now_s
from benchmarks.gameday.town import (
    CONTROLS,
    DATABASES,
    NUMBERS,
    ROUTERS,
    ROUTES,
    WANTED,
    WORKERS,
    Swaps,
    Town,
    eventually,
)
from benchmarks.gameday.traffic import Request, read_requests
from benchmarks.gameday.verdict import Check, Played
from benchmarks.print_rows import print_cells
from tests.support.store.postgres_cluster import postgres_cluster

HEADS: Final = (
    (
        "at s",
        "what was broken",
        "for s",
        "requests meanwhile",
        "failed",
        "as predicted",
        "predicted by",
        "recovery s",
        "until",
    ),
    ("candidate", "should be", "phases"),
    ("check", "holds", "seen"),
)


def print_day(
    played: Sequence[Played],
    checks: Sequence[Check],
    swaps: Swaps,
    begun_s: float,
) -> None:
    acts: list[Sequence[object]] = [
        (
            round(b.begun_s - begun_s),
            a.name,
            round(b.mended_s - b.begun_s),
            one.during,
            one.failed,
            one.predicted,
            f"docs/{a.page}",
            b.recovered_s,
            a.recovery,
        )
        for one in played
        for a, b in [(one.act, one.break_)]
    ]
    ended: list[Sequence[object]] = []
    for candidate, wanted in WANTED.items():
        seen = swaps.phases.get(candidate, {})
        steps = ", ".join(f"{phase} at {at_s - begun_s:.0f} s" for phase, at_s in seen.items())
        ended.append((candidate, wanted.replace("_", " "), steps))
    results: list[Sequence[object]] = [
        (check.what, "yes" if check.good else "NO", check.seen) for check in checks
    ]
    for head, rows in zip(HEADS, (acts, ended, results), strict=True):
        print_cells("", [head, *rows])


INTERRUPTED: Final = 130
WARM_S: Final = 5.0
SETTLES_WITHIN: Final = 0.4  # share of the run; the swaps may end this much later
LEADER_CHANGES: Final = 2  # kill_leader and freeze_leader change the leader


def play(
    folder: Path,
    seconds: float,
    per_s: float,
    envoy: str,
) -> int:
    network = Network()
    processes = Processes(network, folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tempfile.tempdir = str(folder)  # deleted with the folder, however the run ends
    for host, number in NUMBERS.items():
        network.add(host, number)
    first, second = DATABASES
    try:
        # Synchronous: the primary acknowledges a write only after its standby has it.
        with postgres_cluster(
            hosts=(
                network.address(first, "back"),
                network.address(second, "back"),
            ),
            prefixes=(network.command(first), network.command(second)),
            synchronous=True,
            migrated=False,
        ) as database:
            town = Town(network, processes, database, folder, seconds)
            say("starting three routers, two control planes, three workers …")
            return _play(town, town.build(envoy), per_s)
    except NotReady as error:
        print(f"the game day could not go on: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: every process is ended", file=sys.stderr)
        return INTERRUPTED
    finally:
        processes.end()


def _play(
    town: Town,
    key: str,
    per_s: float,
) -> int:
    begun_s = now_s()
    records = town.folder / "requests.jsonl"
    swaps = Swaps(town)
    with poured(town, key, per_s, records), watched(swaps):
        breaks, stopped = _acts(town, begun_s)
        limit_s = max(60.0, SETTLES_WITHIN * town.seconds)
        try:
            eventually(swaps.over, limit_s, "the swaps are not over")
        except NotReady as error:
            say(str(error))
        time.sleep(max(0.0, begun_s + town.seconds - now_s()))
    requests = read_requests(records)
    checks = [*stopped, *_close(town, requests, swaps, breaks)]
    played = [verdict.judge_act(act, break_, requests, breaks) for act, break_ in breaks]
    lasted_s = max((request.end_s for request in requests), default=begun_s) - begun_s
    print(f"\n{len(requests):,} requests in {lasted_s:.0f} s.")
    print_day(played, checks, swaps, begun_s)
    wrong = [check for check in checks if not check.good]
    return 1 if wrong else 0


@contextmanager
def poured(
    town: Town,
    key: str,
    per_s: float,
    records: Path,
) -> Iterator[None]:
    url = f"http://{town.network.address('balancer')}:8000"
    words = (
        "-m",
        "benchmarks.gameday.traffic",
        url,
        str(records),
        str(per_s),
        *ROUTES,
    )
    town.processes.start("users", sys.executable, *words, environment={"SWAPPROOF_KEY": key})
    try:
        yield
    finally:
        town.processes.terminate("users")


@contextmanager
def watched(swaps: Swaps) -> Iterator[None]:
    thread = threading.Thread(target=swaps.run, name="swaps")
    thread.start()
    try:
        yield
    finally:
        swaps.stopping.set()
        thread.join()


def _acts(town: Town, begun_s: float) -> tuple[list[tuple[Act, Break]], list[Check]]:
    """Plays each act at its time, or after the previous act. An act without recovery fails a
    check, and the next acts follow.
    """
    breaks = []
    faults = []
    time.sleep(WARM_S)
    for act in ACTS:
        time.sleep(max(0.0, begun_s + act.at * town.seconds - now_s()))
        say(f"{now_s() - begun_s:5.0f} s  {act.name}")
        lasts_s = max(act.at_least_s, act.lasts * town.seconds)
        try:
            breaks.append((act, act.play(town, lasts_s)))
        except NotReady as error:
            say(str(error))
            faults.append(Check(act.name, str(error).splitlines()[0], good=False))
        else:
            say(f"{now_s() - begun_s:5.0f} s  recovered in {breaks[-1][1].recovered_s:.1f} s")
    return breaks, faults


def _close(
    town: Town,
    requests: Sequence[Request],
    swaps: Swaps,
    breaks: Sequence[tuple[Act, Break]],
) -> list[Check]:
    """Ends the processes after the traffic, and checks the stored rows."""
    codes = {
        name: town.processes.terminate(name)
        for name in (
            *ROUTERS,
            *WORKERS,
            *CONTROLS,
        )
    }
    audit = town.command("audit", "verify", expect=None)
    recorded = {str(route): int(n) for route, n in town.rows(verdict.RECORDED)}
    samples = [(int(planned), int(n)) for planned, n in town.rows(verdict.SAMPLES)]
    checks = [
        verdict.check_requests(requests, breaks),
        verdict.check_books(requests, recorded, breaks),
        verdict.check_samples(samples),
        *verdict.check_swaps(swaps),
        verdict.check_leaders(swaps, LEADER_CHANGES),
        Check(
            "the audit log is whole",
            (audit.stdout + audit.stderr).strip().splitlines()[-1],
            audit.returncode == 0,
        ),
    ]
    town.database.close()
    town.processes.end()
    wrong = {name: code for name, code in codes.items() if code}
    left = _left()
    seen = f"{len(codes) - len(wrong)} ended with 0" + (f", not so {wrong}" if wrong else "")
    seen += f"; still there: {left}" if left else "; nothing is left"
    return [
        *checks,
        Check("every process ends at SIGTERM", seen, not wrong and not left),
    ]


def _left() -> list[str]:
    """Lists the commands of the run's processes that still run."""
    import psutil  # noqa: PLC0415

    others = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [
        " ".join(process.cmdline())[:80]
        for process in others
        if process.status() != psutil.STATUS_ZOMBIE
    ]


def say(line: str) -> None:
    print(line, flush=True)
