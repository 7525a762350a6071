"""Simulates rollouts with conversations under way, as the router assigns and counts them.

`Handovers.place` decides each kind of request once; the simulation draws kinds. Conversations
under way may fail at another rate than new ones, with both models alike (statistics.md §2.1).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import count, pairwise, product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.gate.online.guardrails import ErrorTally, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.providers.models.capabilities import Endpoint
from harness.routing.table import BUCKETS, Arm, Handover, choose_arm, hash_bucket
from router.frame.body import ClientRequest, read_request
from router.recording.shared_files import SharedMarks
from router.request.planner import HandedOver, Handovers
from router.snapshot.compiled import CompiledRoute
from tests.support.router.live_router import served, snapshot
from tests.support.store.records import PLAIN_BLOCK

SIZE: Final = 100
LASTS_S: Final = 1_800.0
SALT: Final = "salt"


class Conversation(IntEnum):
    """The kinds of a request, by the beginning of its conversation."""

    NEW = 0
    UNSEEN = 1  # began before the rollout
    EARLIER = 2  # began at the step before
    HERE = 3  # began at this step


@dataclass(frozen=True)
class HandoverScene:
    """A rollout with conversations under way.

    unseen, earlier: shares of the requests, see `Conversation`. new, running: failure rates of
    the incumbent. harm: times that the candidate's failure rates are as high. handed_over: the
    share of a step's requests that arrive during its handover.
    """

    unseen: float = 0.3
    earlier: float = 0.0
    new: float = 0.05
    running: float = 0.05
    harm: float = 1.0
    steps_bps: tuple[int, ...] = (100, 500, 2_500)
    handed_over: float = 1.0


def simulate_handovers(
    scene: HandoverScene,
    *,
    requests: int,
    rng: np.random.Generator,
) -> list[ObservationBlock]:
    """Simulates a rollout's blocks.

    Args:
        requests: of all steps, each from a caller of its own.

    A step begins with a new period, so callers of the step before may count again.
    """
    blocks: list[ObservationBlock] = []
    shares = (0, *scene.steps_bps)
    for period, (before_bps, now_bps) in enumerate(pairwise(shares), 1):
        canary, failed = _draw_step(
            scene, (before_bps, now_bps), requests // len(scene.steps_bps), rng
        )
        for first in range(0, len(canary) - SIZE + 1, SIZE):
            part = slice(first, first + SIZE)
            blocks.append(
                _block(
                    canary[part],
                    failed[part],
                    number=len(blocks) + 1,
                    period=period,
                    weight_bps=now_bps,
                )
            )
    return blocks


def _draw_step(
    scene: HandoverScene,
    shares_bps: tuple[int, int],
    requests: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draws which counted requests are canary, and which failed."""
    before_bps, now_bps = shares_bps
    buckets = rng.integers(0, BUCKETS, requests)
    earlier = scene.earlier if before_bps else 0.0
    mix = [1.0 - scene.unseen - earlier, scene.unseen, earlier, 0.0]
    kinds = rng.choice(len(mix), size=requests, p=mix)
    zones = np.digitize(buckets, [before_bps, now_bps])
    to_canary = zones < 2
    scored = np.ones(requests, dtype=bool)
    handed_over = np.arange(requests) < scene.handed_over * requests
    for (zone, kind), placed in place_all(before_bps, now_bps).items():
        of_kind = handed_over & (zones == zone) & (kinds == kind)
        to_canary[of_kind] = placed.arm is Arm.CANARY
        scored[of_kind] = placed.scored
    rates = np.where(kinds == Conversation.NEW, scene.new, scene.running)
    rates = np.minimum(np.where(to_canary, scene.harm, 1.0) * rates, 1.0)
    failed = rng.random(requests) < rates
    return to_canary[scored], failed[scored]


def _block(
    canary: NDArray[np.bool_],
    failed: NDArray[np.bool_],
    *,
    number: int,
    period: int,
    weight_bps: int,
) -> ObservationBlock:
    units = len(canary), int(canary.sum())
    failures = int(failed.sum()), int((failed & canary).sum())
    return replace(
        PLAIN_BLOCK,
        sequence=number,
        number=number,
        period=period,
        weight_bps=weight_bps,
        units=units[0],
        canary_units=units[1],
        failures=failures[0],
        canary_failures=failures[1],
        counts={Guardrail.ERRORS: ErrorTally(*units, *failures)},
    )


_ASKED: Final = {"role": "user", "content": "hi"}
_SAID: Final = {"role": "assistant", "content": "hello"}


def request_of(*, under_way: bool) -> ClientRequest:
    messages = [_ASKED, _SAID, _ASKED] if under_way else [_ASKED]
    body = json.dumps({"model": "support", "messages": messages}).encode()
    return read_request(body, Endpoint.CHAT)


def at_step(before_bps: int, now_bps: int) -> CompiledRoute:
    """Compiles the route during the handover of a step.

    Args:
        before_bps: the share before it.
    """
    first = snapshot("http://up", weight_bps=now_bps)
    route = first.table.routes["support"]
    assert route.canary is not None
    canary = replace(route.canary, salt=SALT, handover=Handover(LASTS_S, before_bps))
    routes = {**first.table.routes, "support": replace(route, canary=canary)}
    moved = replace(first, table=replace(first.table, routes=routes))
    return served(moved).routes["support"]


def keys_between(low_bps: int, high_bps: int) -> Iterator[str]:
    """Generates keys whose bucket is in a part of all buckets."""
    return (
        key for key in map(str, count()) if low_bps <= hash_bucket(key, salt=SALT) < high_bps
    )


def place_all(before_bps: int, now_bps: int) -> Mapping[tuple[int, Conversation], HandedOver]:
    """Places one request of each kind during a step's handover.

    By zone of the caller's bucket (0: canary before, 1: canary from now on, 2: incumbent) and
    kind. Zones without a bucket, and conversations of a step that never was, are left out.
    """
    limits = (0, before_bps, now_bps, BUCKETS)
    earlier = at_step(0, before_bps) if before_bps else None
    route = at_step(before_bps, now_bps)
    zones = [zone for zone, (low, high) in enumerate(pairwise(limits)) if low < high]
    return {
        (zone, kind): _place(kind, next(keys_between(*limits[zone : zone + 2])), earlier, route)
        for zone, kind in product(zones, Conversation)
        if earlier is not None or kind is not Conversation.EARLIER
    }


def _place(
    kind: Conversation,
    key: str,
    earlier: CompiledRoute | None,
    route: CompiledRoute,
) -> HandedOver:
    handovers = Handovers(lambda: 0.0, SharedMarks(b"secret"))
    began = {Conversation.EARLIER: earlier, Conversation.HERE: route}.get(kind)
    if began is not None:
        place(handovers, began, key, under_way=False)
    return place(handovers, route, key, under_way=kind is not Conversation.NEW)


def place(
    handovers: Handovers,
    route: CompiledRoute,
    key: str,
    *,
    under_way: bool,
) -> HandedOver:
    """Places a request as the planner does."""
    request = request_of(under_way=under_way)
    return handovers.place(route, request, key, choose_arm(route.route, key))


def count_moved(conversations: int, steps_bps: Sequence[int]) -> int:
    """Counts the conversations that leave the incumbent at the last step, although they began
    there at the step before.
    """
    earlier_bps, before_bps, now_bps = steps_bps
    handovers = Handovers(lambda: 0.0, SharedMarks(b"secret"))
    at_first = at_step(earlier_bps, before_bps)
    at_last = at_step(before_bps, now_bps)
    keys = keys_between(before_bps, now_bps)
    moved = 0
    for _ in range(conversations):
        key = next(keys)
        began = place(handovers, at_first, key, under_way=False)
        later = place(handovers, at_last, key, under_way=True)
        moved += began.arm is Arm.INCUMBENT and later.arm is not Arm.INCUMBENT
    return moved
