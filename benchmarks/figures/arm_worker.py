"""Chooses the arm of many keys in a process of its own, as a router's worker would."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.domain.routing.table import Arm, Route, choose_arm
from harness.runtime.clock import SystemClock
from harness.store.sql import SqlStore
from tests.support.site.signing_keys import VERIFIER

ROUTE: Final = "chat"
BoolArray = npt.NDArray[np.bool_]


def key_name(number: int) -> str:
    return f"user:user-{number}"


def choose_all(
    database: Path, secret: bytes, keys: int, candidate: str, _worker: int
) -> BoolArray:
    """By key, whether the candidate answers it; in a process of its own."""
    store = SqlStore(
        f"sqlite:///{database}", secret=secret, clock=SystemClock(), signatures=VERIFIER
    )
    with store.read() as tx:
        route = tx.routing.table().routes[ROUTE]
    store.close()
    on: dict[Arm, bool] = {
        arm: serves(route, arm) == candidate for arm in Arm if arm is not Arm.KEEP_WARM
    }
    chosen = (on[choose_arm(route, key_name(number))] for number in range(keys))
    return np.fromiter(chosen, dtype=np.bool_, count=keys)


def serves(route: Route, arm: Arm) -> str | None:
    """The target of an arm; None where the route has no such arm now."""
    match arm:
        case Arm.CANARY:
            return route.canary.target if route.canary else None
        case Arm.HOLDBACK:
            return route.holdback.target if route.holdback else None
        case _:
            return route.incumbent
