"""Remembers a target's refusals, to repair later requests before their first try.

Two kinds of repairs exist: a field that the target does not take, and a piece of the
history that only another provider reads. `transports` calls `learn` after a refusal, `apply`
before each request, and `note_answer` after a good answer. `router.protocols.provider_failures`
classifies a refusal. `harness.routing.reliability.request_repair` finds a field's repair, and
`repair_memory` decides to which requests it applies.
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
MOST_PLACES: Final = 2048
MOST_VALUES: Final = 65_536
# One request may lose this many different pieces.
MOST_PIECES: Final = 2
# Stands for any refused field in the list of refused pieces.
FIELD_PIECE: Final = "field"
# In later requests, the router removes these pieces only if the target refused their values.
_PIECES_WITH_VALUES: Final = frozenset({Piece.THINKING, Piece.REASONING, Piece.FILE})
_OF_ANOTHER_TARGET: Final = " of another target"
# Classes of refusals that may be about a field.
_FIELD_CLASSES: Final = frozenset(
    {
        FailureClass.UNSUPPORTED,
        FailureClass.BAD_REQUEST,
        FailureClass.CONTEXT_WINDOW,
    }
)
BETA_HEADER: Final = b"anthropic-beta"
_WORD: Final = re.compile(r"[a-z]+")
Headers = tuple[tuple[bytes, bytes], ...]
# Provider, maker, endpoint.
Place = tuple[str, str, str]


class LearnedField(NamedTuple):
    """A field that a target refuses.

    conditions: the rest of the refused combination, for people; empty if the target refuses
    the field in all requests.
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
        self._by_target: BoundedMap[Place, TargetRepairs] = BoundedMap(MOST_PLACES)
        # By provider, maker and value.
        self._refused_values: BoundedMap[tuple[str, str, bytes], Piece] = BoundedMap(
            MOST_VALUES
        )
        self.any = False  # most routers have no repairs
        self.ways = ToolWays(monotonic)

    def apply(
        self, request: UpstreamRequest, *, may_test: bool = True
    ) -> tuple[UpstreamRequest, tuple[str, ...]]:
        """Returns the request in a form that its target accepts, and the changed parts' names.

        Args:
            may_test: whether the method may omit a repair that is due for a test.
        """
        body, combination = _read_request(request)
        repair_place = _find_place(request, body)
        repairs = self._by_target.get(repair_place)
        if repairs is None:
            return request, ()
        now_s = self._monotonic()
        changed: tuple[str, ...] = ()
        for entry in repairs.memory.known:
            if not entry.counts(now_s):
                continue
            if entry.repair.kind is RepairKind.LEAVE_PIECE:
                repaired, removed = self._remove_refused_values(request, entry.repair)
            elif combination is None or not entry.applies(body, combination):
                continue
            elif may_test and now_s >= entry.test_at_s:
                may_test = False  # one test a request, which keeps within MAX_REPAIRS
                memory = begin_test(repairs.memory, entry, now_s)
                self._by_target.put(repair_place, repairs._replace(memory=memory))
                continue
            else:
                repaired, removed = _repair(request, entry.repair)
            if repaired is not request:
                request = repaired
                # A later repair was learned from a request that this repair had changed.
                body, combination = _read_request(request)
            changed = (*changed, *removed)
        return request, changed

    def learn(
        self,
        request: UpstreamRequest,
        status: int,
        refusal: bytes,
        before: Sequence[str],
    ) -> Repaired | None:
        """Learns from a refusal. Returns the repaired request; None without a new repair.

        Args:
            refusal: the error's body.
            before: pieces that the target refused in this request so far.

        A request loses at most MOST_PIECES pieces and MAX_REPAIRS fields.
        """
        error = error_object(refusal)
        row = refusal_row(error, status) if error is not None else None
        piece = row.loses if row is not None else None
        if piece is None:
            if error is None or before.count(FIELD_PIECE) >= MAX_REPAIRS:
                return None
            return self._learn_field(request, status, refusal, error)
        if piece in before or len({*before} - {FIELD_PIECE}) >= MOST_PIECES:
            return None
        smaller_request = without_piece(request, piece)
        if smaller_request is None:
            return None
        if piece in _PIECES_WITH_VALUES:
            for value in read_values(request.body) - read_values(smaller_request[0].body):
                self._refused_values.put((request.provider.name, request.maker, value), piece)
            self.keep(
                request,
                RequestRepair(
                    RepairKind.LEAVE_PIECE,
                    f"{piece}{_OF_ANOTHER_TARGET}",
                    reach=RepairReach.OUTRIGHT,
                ),
            )
        return Repaired(*smaller_request, piece)

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
        # A message that names a value to set shows a repair for every class of refusals.
        is_about_field = classify_status(status, refusal) in _FIELD_CLASSES
        if not is_about_field and repair.kind is not RepairKind.SET:
            return None
        repaired, changed = _repair(request, repair)
        if (repaired.body, repaired.headers) == (request.body, request.headers):
            return None
        if repair.reach is RepairReach.REQUEST:
            return Repaired(repaired, changed, FIELD_PIECE)
        repaired, further_changes = self.apply(repaired, may_test=False)
        return Repaired(repaired, (*changed, *further_changes), FIELD_PIECE, (request, repair))

    def note_answer(self, request: UpstreamRequest) -> None:
        """Ends the repairs that would have changed a request with a good answer."""
        body, combination = _read_request(request)
        repair_place = _find_place(request, body)
        repairs = self._by_target.get(repair_place)
        if repairs is None or combination is None:
            return
        memory = note_answer(repairs.memory, body, combination)
        if memory is not repairs.memory:
            self._by_target.put(repair_place, repairs._replace(memory=memory))

    def _remove_refused_values(
        self, request: UpstreamRequest, repair: RequestRepair
    ) -> tuple[UpstreamRequest, tuple[str, ...]]:
        piece = Piece(repair.field.removesuffix(_OF_ANOTHER_TARGET))
        value_owner = request.provider.name, request.maker
        refused_values = {
            value.decode("utf-8", "replace")
            for value in read_values(request.body)
            if self._refused_values.get((*value_owner, value)) is piece
        }
        smaller_request = (
            without_piece(request, piece, refused_values) if refused_values else None
        )
        return smaller_request or (request, ())

    def fields(self) -> Mapping[str, Sequence[LearnedField]]:
        """Returns the fields that each target refuses, by `provider/model`, for alerts and
        metrics.
        """
        now_s = self._monotonic()
        fields_by_target: dict[str, set[LearnedField]] = {}
        for target, memory in self._by_target.values():
            fields = {
                LearnedField(
                    entry.repair.shown,
                    tuple(entry.refused.conditions(entry.repair.field)),
                )
                for entry in memory.known
                # Renaming a field does not change a request's meaning.
                if entry.counts(now_s) and entry.repair.kind is not RepairKind.RENAME
            }
            if fields:
                fields_by_target.setdefault(target, set()).update(fields)
        for target in self.ways.without_responses():
            fields_by_target.setdefault(target, set()).add(_NO_EFFORT)
        return {target: sorted(fields) for target, fields in sorted(fields_by_target.items())}

    def keep(self, request: UpstreamRequest, repair: RequestRepair) -> None:
        """Remembers a repair for later requests.

        Args:
            request: the refused request.

        Call it only for a repair that helped: the provider answered, or named another part.
        Otherwise a client could take fields from other clients by sending a field whose name
        looks like a path, such as `reasoning.effort`.
        """
        body, combination = _read_request(request)
        if combination is None:
            return
        repair_place = _find_place(request, body)
        repairs = self._by_target.get(repair_place)
        memory = remember_refusal(
            repairs.memory if repairs else RepairMemory(),
            repair,
            body,
            combination,
            self._monotonic(),
        )
        target = f"{request.provider.name}/{body.get('model')}"
        self._by_target.put(repair_place, TargetRepairs(target, memory))
        self.any = True


def _read_request(request: UpstreamRequest) -> tuple[dict[str, Any], Combination | None]:
    body: dict[str, Any] = json.loads(request.body)
    return body, read_combination(body, _list_betas(request.headers))


def _find_place(request: UpstreamRequest, body: Mapping[str, Any]) -> Place:
    return request.provider.name, request.maker or str(body.get("model")), request.path


def _repair(
    request: UpstreamRequest, repair: RequestRepair
) -> tuple[UpstreamRequest, tuple[str, ...]]:
    """Applies a repair of a field. Removes beta headers that belong to the removed field."""
    body, changed = repair_request(json.loads(request.body), [repair])
    sent_betas = _list_betas(request.headers)
    named_betas = [beta for beta in sent_betas if beta in repair.betas]
    removed_betas = [
        *named_betas,
        *(beta for beta in sent_betas if _belongs_to_fields(beta, changed)),
    ]
    if not (changed or removed_betas or repair.kind is RepairKind.RENAME):
        return request, ()
    headers = _remove_betas(request.headers, removed_betas)
    repaired_request = replace(request, body=to_json(body).encode(), headers=headers)
    return repaired_request, (*changed, *named_betas)


def _belongs_to_fields(beta: str, fields: Iterable[str]) -> bool:
    """Returns whether a beta's name has a word of a changed field, so that both must go."""
    words = {word for field in fields for word in _WORD.findall(field.rpartition(".")[2])}
    return not words.isdisjoint(_WORD.findall(beta))


def _remove_betas(headers: Headers, removed: Sequence[str]) -> Headers:
    if not removed:
        return headers
    other_betas = [beta for beta in _list_betas(headers) if beta not in removed]
    other_headers = tuple(header for header in headers if header[0] != BETA_HEADER)
    return (
        (*other_headers, (BETA_HEADER, ",".join(other_betas).encode("latin-1")))
        if other_betas
        else other_headers
    )


def _list_betas(headers: Headers) -> Sequence[str]:
    values = (value.decode("latin-1") for name, value in headers if name == BETA_HEADER)
    return [beta for value in values for part in value.split(",") if (beta := part.strip())]
