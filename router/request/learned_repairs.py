"""Learned repairs keep for a day which fields of a request a target does not take, as its
refusals said it, so that the next request is sent right at once. For one event loop; no I/O.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from harness.domain.reliability.failures import FailureClass
from harness.domain.reliability.request_repair import (
    RequestRepair,
    find_repair,
    repair_request,
)
from harness.domain.routing.capabilities import Endpoint
from router.recording.bounded_map import BoundedMap
from router.request.body_patch import to_json
from router.upstream.failure import UpstreamFailed, error_object

# How long a target's refusal is believed.
KEPT_S: Final = 86_400.0
# Targets and endpoints.
KEPT: Final = 2048
# Of refusals, those that may be about a field.
_OF_A_FIELD: Final = frozenset({FailureClass.UNSUPPORTED, FailureClass.BAD_REQUEST})
Learned = Mapping[str, tuple[RequestRepair, float]]


class LearnedRepairs:
    """Knows the repairs of targets, by target id and endpoint. monotonic: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._by_target: BoundedMap[tuple[str, Endpoint], Learned] = BoundedMap(KEPT)
        self.any = False  # most routers have learned nothing

    def knows(self, target: str, endpoint: Endpoint) -> bool:
        return bool(self._current(target, endpoint))

    def apply(
        self, target: str, endpoint: Endpoint, body: bytes
    ) -> tuple[bytes, tuple[str, ...]]:
        """The body as the target takes it, and the names of the fields that were changed."""
        repairs = self._current(target, endpoint)
        if not repairs:
            return body, ()
        repaired, changed = repair_request(json.loads(body), repairs)
        return to_json(repaired).encode(), changed

    def learn(
        self, target: str, endpoint: Endpoint, sent: bytes, failure: UpstreamFailed
    ) -> bool:
        """Takes a repair from a refusal of what was sent. Whether there is one, which was not
        tried yet.
        """
        error = error_object(failure.body)
        if failure.failure not in _OF_A_FIELD or error is None:
            return False
        repair = find_repair(error, json.loads(sent))
        known = self._by_target.get((target, endpoint)) or {}
        if repair is None:
            return False
        until = self._monotonic() + KEPT_S
        self._by_target.put((target, endpoint), {**known, repair.field: (repair, until)})
        self.any = True
        return True

    def _current(self, target: str, endpoint: Endpoint) -> list[RequestRepair]:
        now = self._monotonic()
        known = self._by_target.get((target, endpoint)) or {}
        return [repair for repair, until in known.values() if now < until]
