"""Prints which functions a request's time goes to, as cProfile sees it in the router's thread.

cProfile adds a cost to each call, so small functions look dearer than they are. The share of a
C function belongs to the Python function that calls it.
"""

import cProfile
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.print_rows import print_cells
from harness.frame import package_data
from tests.support.router.costed_requests import CostedRequest, meter_of

WARM_UP: Final = 300
REQUESTS: Final = 1000
FUNCTIONS: Final = 45
# The phase of each file or folder of the router; the longest prefix applies.
PHASES: Final = {
    "router/server": "parse",
    "router/frame/body": "parse",
    "router/frame/json_spans": "parse",
    "router/request/client_directives": "parse",
    "router/protocols/caller_names": "parse",
    "router/access": "plan",
    "router/snapshot": "plan",
    "router/health": "plan",
    "router/request/planner": "plan",
    "router/request/model_endpoint": "plan",
    "harness/routing": "plan",
    "router/request": "forward",
    "router/conversation": "forward",
    "router/upstream": "forward",
    "router/protocols": "forward",
    "router/frame": "forward",
    "router/recording": "record",
    "router/observers": "record",
    "router/request/settlement": "record",
    "router/request/outcome": "record",
    "router/request/answer_cost": "record",
    "router/request/request_observers": "record",
    "router/request/guardrail_probe": "record",
}
OTHER: Final = "libraries"

Function = tuple[str, int, str]
Caller = tuple[int, int, float, float]
# Calls, primitive calls, own seconds, seconds with calls; and the same for each caller.
Row = tuple[int, int, float, float, Mapping[Function, Caller]]


def _phase(file: str) -> str:
    own = file.removeprefix(f"{package_data.ROOT}/")
    known = [prefix for prefix in PHASES if own.startswith(prefix)]
    return PHASES[max(known, key=len)] if known else OTHER


def _profile(kind: CostedRequest, folder: Path) -> cProfile.Profile:
    with meter_of(kind, folder) as meter:
        bodies = kind.bodies()
        for _ in range(WARM_UP):
            meter.ask(kind.path, next(bodies))
        profile = cProfile.Profile(time.thread_time)
        meter.in_loop(profile.enable)
        for _ in range(REQUESTS):
            meter.ask(kind.path, next(bodies))
        meter.in_loop(profile.disable)
    return profile


def _own_times(profile: cProfile.Profile) -> dict[Function, float]:
    """Returns each Python function's own time, with the C functions that it calls."""
    times: defaultdict[Function, float] = defaultdict(float)
    rows: Mapping[Function, Row] = vars(pstats.Stats(profile))["stats"]
    for function, (_, _, own_s, _, callers) in rows.items():
        if function[0] != "~" or not callers:
            times[function] += own_s
            continue
        for caller, (_, _, caller_own_s, _) in callers.items():
            times[caller] += caller_own_s
    return times


def print_shares(kind: CostedRequest) -> None:
    """Prints the share of each phase, then of the functions with the largest shares."""
    with tempfile.TemporaryDirectory(prefix="swapproof-shares-") as folder:
        times = _own_times(_profile(kind, Path(folder)))
    # The wait for sockets is the event loop's.
    times = {
        function: own_s
        for function, own_s in times.items()
        if "run_until_complete" not in function[2]
    }
    total_s = sum(times.values())
    phases: defaultdict[str, float] = defaultdict(float)
    for (file, _, _), own_s in times.items():
        phases[_phase(file)] += own_s
    rows = [[name, f"{own_s / total_s:.1%}"] for name, own_s in _largest(phases)]
    print_cells("Share of a request's time", rows)
    rows = [
        [f"{own_s / total_s:.1%}", _phase(file), f"{_short(file)}:{line} {name}"]
        for (file, line, name), own_s in _largest(times)[:FUNCTIONS]
    ]
    print_cells("Functions", rows)


K = TypeVar("K")


def _largest(seconds: Mapping[K, float]) -> list[tuple[K, float]]:
    return sorted(seconds.items(), key=lambda item: item[1], reverse=True)


def _short(file: str) -> str:
    return file.removeprefix(f"{package_data.ROOT}/")
