"""Remembers a target's refusals, to repair later requests before their first try.

Two kinds of repairs exist: a field that the target does not take, and a piece of the
history that only another provider reads. `transports` calls `learn` after a refusal, `apply`
before each request, and `note_answer` after a good answer. What a refusal means is read in
`router.protocols.provider_failures`; a field's repair is found in
`harness.routing.reliability.request_repair`, and `repair_memory` decides to which requests it
applies.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from harness.frame.failures import FailureClass
from harness.routing.reliability.repair_memory import (
    Combination,
    RepairMemory,
    begin_test,
    note_answer,
    read_combination,
    remember_refusal,
)
from harness.routing.reliability.request_repair import (
    MAX_REPAIRS,
    RepairKind,
    RepairReach,
    RequestRepair,
    find_repair,
    repair_request,
)
from router.frame.body import to_json
from router.frame.failure import error_object
from router.frame.limits import BoundedMap
from router.protocols.provider_failures import classify_status, refusal_row
from router.protocols.provider_refusals import Piece
from router.upstream.learned_ways import ToolWays
from router.upstream.refused_pieces import read_values, without_piece
from router.upstream.transport import UpstreamRequest

# The most (target, endpoint) pairs, and refused values.
KEPT: Final = 2048
VALUES: Final = 65_536
# One request may lose this many different pieces.
MOST_PIECES: Final = 2
# Stands for any refused field in the list of refused pieces.
FIELD: Final = "field"
# In later requests, the router removes these pieces only if the target refused their values.
_OF_VALUES: Final = frozenset({Piece.THINKING, Piece.REASONING, Piece.FILE})
_ELSEWHERE: Final = " of another target"
# Classes of refusals that may be about a field.
_OF_A_FIELD: Final = frozenset(
    {
        FailureClass.UNSUPPORTED,
        FailureClass.BAD_REQUEST,
        FailureClass.CONTEXT_WINDOW,
    }
)
_BETA: Final = b"anthropic-beta"
_WORDS: Final = re.compile(r"[a-z]+")
Headers = tuple[tuple[bytes, bytes], ...]
# Provider, maker, endpoint.
Place = tuple[str, str, str]


class LearnedField(NamedTuple):
    """A field that a target refuses. conditions: the rest of the refused combination, for
    people; empty if the target refuses the field in all requests.
    """

    field: str
    conditions: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return (
            f"{self.field} with {', '.join(self.conditions)}" if self.conditions else self.field
        )


_NO_EFFORT: Final = LearnedField("reasoning_effort", ("tools",))
# Fields that a target refuses, by the target's name.
LearnedFields = Callable[[], Mapping[str, Sequence[LearnedField]]]


class Repaired(NamedTuple):
    """A request for another try. refused: the piece that the target refused, or FIELD.

    learned: the refused request and the repair of its field, for `keep` if the repair helps.
    """

    request: UpstreamRequest
    changed: tuple[str, ...]
    refused: str
    learned: tuple[UpstreamRequest, RequestRepair] | None = None


class TargetRepairs(NamedTuple):
    """An endpoint's refusals. target: `provider/model`."""

    target: str
    memory: RepairMemory


class LearnedRepairs:
    """Repairs of targets, by provider, maker and endpoint. monotonic: a clock in seconds.

    An instance belongs to one worker: each worker learns by itself.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._by_target: BoundedMap[Place, TargetRepairs] = BoundedMap(KEPT)
        # By provider, maker and value.
        self._refused: BoundedMap[tuple[str, str, bytes], Piece] = BoundedMap(VALUES)
        self.any = False  # most routers have no repairs
        self.ways = ToolWays(monotonic)

    def apply(
        self, request: UpstreamRequest, *, may_test: bool = True
    ) -> tuple[UpstreamRequest, tuple[str, ...]]:
        """Returns the request as its target takes it, and the names of the changed parts.

        may_test: whether a repair that is due for a test may be left out.
        """
        body, combination = _read(request)
        place = _place(request, body)
        known = self._by_target.get(place)
        if known is None:
            return request, ()
        now_s = self._monotonic()
        changed: tuple[str, ...] = ()
        for entry in known.memory.known:
            if not entry.counts(now_s):
                continue
            if entry.repair.kind is RepairKind.LEAVE_PIECE:
                repaired, gone = self._without_piece(request, entry.repair)
            elif combination is None or not entry.applies(body, combination):
                continue
            elif may_test and now_s >= entry.test_at_s:
                may_test = False  # one test a request, which keeps within MAX_REPAIRS
                memory = begin_test(known.memory, entry, now_s)
                self._by_target.put(place, known._replace(memory=memory))
                continue
            else:
                repaired, gone = _repaired(request, entry.repair)
            if repaired is not request:
                request = repaired
                # A later repair was learned from a request that this repair had changed.
                body, combination = _read(request)
            changed = (*changed, *gone)
        return request, changed

    def learn(
        self,
        request: UpstreamRequest,
        status: int,
        refusal: bytes,
        before: Sequence[str],
    ) -> Repaired | None:
        """Learns from a refusal. Returns the repaired request; None without a new repair.

        refusal: the error's body. before: pieces that the target refused in this request so
        far; a request loses at most MOST_PIECES pieces and a bounded number of fields.
        """
        error = error_object(refusal)
        row = refusal_row(error, status) if error is not None else None
        piece = row.loses if row is not None else None
        if piece is None:
            if error is None or before.count(FIELD) >= MAX_REPAIRS:
                return None
            return self._learn_field(request, status, refusal, error)
        if piece in before or len({*before} - {FIELD}) >= MOST_PIECES:
            return None
        less = without_piece(request, piece)
        if less is None:
            return None
        if piece in _OF_VALUES:
            for value in read_values(request.body) - read_values(less[0].body):
                self._refused.put((request.provider.name, request.maker, value), piece)
            self.keep(
                request,
                RequestRepair(
                    RepairKind.LEAVE_PIECE, f"{piece}{_ELSEWHERE}", reach=RepairReach.OUTRIGHT
                ),
            )
        return Repaired(*less, piece)

    def _learn_field(
        self,
        request: UpstreamRequest,
        status: int,
        refusal: bytes,
        error: Mapping[str, object],
    ) -> Repaired | None:
        repair = find_repair(error, json.loads(request.body))
        if repair is None:
            return None
        # A way out in the provider's words is one for each class, such as a missing endpoint.
        classed = classify_status(status, refusal) in _OF_A_FIELD
        if not classed and repair.kind is not RepairKind.SET:
            return None
        repaired, changed = _repaired(request, repair)
        if (repaired.body, repaired.headers) == (request.body, request.headers):
            return None
        if repair.reach is RepairReach.REQUEST:
            return Repaired(repaired, changed, FIELD)
        repaired, more = self.apply(repaired, may_test=False)
        return Repaired(repaired, (*changed, *more), FIELD, (request, repair))

    def note_answer(self, request: UpstreamRequest) -> None:
        """Ends the repairs that would have changed a request with a good answer."""
        body, combination = _read(request)
        place = _place(request, body)
        known = self._by_target.get(place)
        if known is None or combination is None:
            return
        memory = note_answer(known.memory, body, combination)
        if memory is not known.memory:
            self._by_target.put(place, known._replace(memory=memory))

    def _without_piece(
        self, request: UpstreamRequest, repair: RequestRepair
    ) -> tuple[UpstreamRequest, tuple[str, ...]]:
        piece = Piece(repair.field.removesuffix(_ELSEWHERE))
        of = request.provider.name, request.maker
        found = {
            value.decode("utf-8", "replace")
            for value in read_values(request.body)
            if self._refused.get((*of, value)) is piece
        }
        less = without_piece(request, piece, found) if found else None
        return less or (request, ())

    def fields(self) -> Mapping[str, Sequence[LearnedField]]:
        """Returns the fields that each target refuses, by `provider/model`, for alerts and
        metrics.
        """
        now_s = self._monotonic()
        found: dict[str, set[LearnedField]] = {}
        for target, memory in self._by_target.values():
            shown = {
                LearnedField(
                    entry.repair.shown,
                    tuple(entry.refused.conditions(entry.repair.field)),
                )
                for entry in memory.known
                # Renaming a field does not change a request's meaning.
                if entry.counts(now_s) and entry.repair.kind is not RepairKind.RENAME
            }
            if shown:
                found.setdefault(target, set()).update(shown)
        for target in self.ways.without_responses():
            found.setdefault(target, set()).add(_NO_EFFORT)
        return {target: sorted(shown) for target, shown in sorted(found.items())}

    def keep(self, request: UpstreamRequest, repair: RequestRepair) -> None:
        """Remembers a repair for later requests. request: as the provider refused it.

        Call it only for a repair that helped: the provider answered, or named another part.
        Otherwise a client could take fields from other clients by sending a field whose name
        looks like a path, such as `reasoning.effort`.
        """
        body, combination = _read(request)
        if combination is None:
            return
        place = _place(request, body)
        known = self._by_target.get(place)
        memory = remember_refusal(
            known.memory if known else RepairMemory(),
            repair,
            body,
            combination,
            self._monotonic(),
        )
        target = f"{request.provider.name}/{body.get('model')}"
        self._by_target.put(place, TargetRepairs(target, memory))
        self.any = True


def _read(request: UpstreamRequest) -> tuple[dict[str, Any], Combination | None]:
    body: dict[str, Any] = json.loads(request.body)
    return body, read_combination(body, _betas(request.headers))


def _place(request: UpstreamRequest, body: Mapping[str, Any]) -> Place:
    return request.provider.name, request.maker or str(body.get("model")), request.path


def _repaired(
    request: UpstreamRequest, repair: RequestRepair
) -> tuple[UpstreamRequest, tuple[str, ...]]:
    """Applies a repair of a field. Removes beta headers that belong to the removed field."""
    body, changed = repair_request(json.loads(request.body), [repair])
    sent_betas = _betas(request.headers)
    named = [beta for beta in sent_betas if beta in repair.betas]
    betas = [
        *named,
        *(beta for beta in sent_betas if _goes_with(beta, changed)),
    ]
    if not (changed or betas or repair.kind is RepairKind.RENAME):
        return request, ()
    headers = _without_betas(request.headers, betas)
    sent = replace(request, body=to_json(body).encode(), headers=headers)
    return sent, (*changed, *named)


def _goes_with(beta: str, fields: Iterable[str]) -> bool:
    """Returns whether a beta's name has a word of a changed field, so that both must go."""
    words = {word for field in fields for word in _WORDS.findall(field.rpartition(".")[2])}
    return not words.isdisjoint(_WORDS.findall(beta))


def _without_betas(headers: Headers, gone: Sequence[str]) -> Headers:
    if not gone:
        return headers
    kept = [beta for beta in _betas(headers) if beta not in gone]
    rest = tuple(header for header in headers if header[0] != _BETA)
    return (*rest, (_BETA, ",".join(kept).encode("latin-1"))) if kept else rest


def _betas(headers: Headers) -> Sequence[str]:
    values = (value.decode("latin-1") for name, value in headers if name == _BETA)
    return [beta for value in values for part in value.split(",") if (beta := part.strip())]
