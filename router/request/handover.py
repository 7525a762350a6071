"""A handover lets a conversation that is under way stay with the incumbent for a while after a
canary opened or got a larger share. New ones are drawn.

A request shows by itself whether its conversation is under way: its history has an answer. One
that the candidate began stays with it: the worker that served its beginning remembers its key,
and for every other worker a piece of the history that the candidate signed names it. For one
event loop; no I/O.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.table import Arm, hash_bucket
from router.conversation.makers import is_made_by
from router.recording.bounded_map import BoundedMap
from router.request.body import ClientRequest
from router.snapshot.compiled import CompiledRoute

# Conversations that began within a handover.
KEPT: Final = 65_536
# Up to Python 3.11, to find a member in its class takes ten times as long.
_CANARY: Final = Arm.CANARY
_INCUMBENT: Final = Arm.INCUMBENT
_RESPONSES: Final = Endpoint.RESPONSES


class HandedOver(NamedTuple):
    """The arm of a request within a handover. scored: whether it is evidence of either arm. A
    conversation that began before the canary is no evidence.
    """

    arm: Arm
    scored: bool = True


class Handovers:
    """Places the requests of routes whose canary has just moved. now_s: seconds since 1970
    UTC.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._begun: BoundedMap[tuple[str, str], Arm] = BoundedMap(KEPT)

    def place(
        self,
        route: CompiledRoute,
        request: ClientRequest,
        key: str,
        drawn: Arm,
        template: int = 0,
    ) -> HandedOver:
        """Returns the arm of a request. key: the sticky one. drawn: the arm of its key.
        template: the user's messages before those of the conversation.
        """
        canary = route.route.canary
        handover = canary.handover if canary is not None else None
        if canary is None or handover is None or self._now_s() >= handover.until_s:
            return HandedOver(drawn)
        if hash_bucket(key, salt=canary.salt) < handover.settled_bps:
            return HandedOver(drawn)
        begun = (canary.rollout, key)
        if not is_under_way(request, template):
            self._begun.put(begun, drawn)
            return HandedOver(drawn)
        if self._begun.get(begun) is not None:
            return HandedOver(drawn)
        if drawn is not _CANARY:
            # At the first step no caller of either arm has been counted yet.
            return HandedOver(drawn, scored=handover.settled_bps > 0)
        is_candidates = is_made_by(request.text, route.upstreams[canary.target].maker)
        return HandedOver(_CANARY if is_candidates else _INCUMBENT, scored=False)


def is_under_way(request: ClientRequest, template: int = 0) -> bool:
    """Tells whether a request's history has an answer to the user's first message behind the
    template. An answer that is its last turn is the beginning of the one that is asked for.
    """
    if request.endpoint is _RESPONSES:
        if request.value("previous_response_id") or request.value("conversation"):
            return True
        turns = request.value("input")
    else:
        turns = request.value("messages")
    if not isinstance(turns, list):
        return False
    asked = [number for number, turn in enumerate(turns) if _role(turn) == "user"]
    first = asked[template] if len(asked) > template else 0
    return any(map(_is_answer, turns[first:-1]))


def _role(turn: object) -> object:
    return turn.get("role") if isinstance(turn, dict) else None


def _is_answer(turn: object) -> bool:
    """Whether it is an answer, or an item of one: a call, a thought."""
    is_item = isinstance(turn, dict) and turn.get("type", "message") != "message"
    return is_item or _role(turn) == "assistant"
