"""Remembers a target's refusals for a day, to repair later requests before their first try.

Two kinds of repairs exist: a field that the target does not take, and a piece of the
history that only another provider reads. `transports` calls `learn` after a refusal, and
`apply` before each request. What a refusal means is read in
`router.protocols.provider_failures`; a field's repair is found in
`harness.routing.reliability.request_repair`.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from harness.frame.failures import FailureClass
from harness.routing.reliability.request_repair import (
    MAX_REPAIRS,
    RepairKind,
    RequestRepair,
    find_repair,
    repair_request,
)
from router.conversation.chat_history import give_back_reasoning
from router.conversation.hosted_tools import say_files
from router.conversation.intake import MovedBody
from router.conversation.native_histories import without_reasoning, without_thoughts
from router.frame.body import MESSAGES_PATH, RESPONSES_PATH, list_objects, to_json
from router.frame.failure import error_object
from router.frame.limits import BoundedMap
from router.protocols.provider_failures import classify_status, refusal_row
from router.protocols.provider_refusals import Piece
from router.upstream.transport import UpstreamRequest

Json = dict[str, Any]
_SIGNED: Final = ("extra_content", "thinking_blocks", "reasoning_details")


def without_piece(
    request: UpstreamRequest, piece: Piece, values: Collection[str] | None = None
) -> tuple[UpstreamRequest, tuple[str, ...]] | None:
    """Removes content of one kind; None if nothing changed. values: only content with one of
    these ids or signatures.
    """
    moved = _body_without(request, piece, values)
    if moved is None or moved.body == request.body:
        return None
    return replace(request, body=moved.body), moved.dropped


def _body_without(
    request: UpstreamRequest, piece: Piece, values: Collection[str] | None
) -> MovedBody | None:
    # Paths below an endpoint, such as the token count, have the same history.
    below = (path for path in (MESSAGES_PATH, RESPONSES_PATH) if request.path.startswith(path))
    match piece, next(below, request.path):
        case Piece.THINKING | Piece.SIGNATURE, "/messages":
            return without_thoughts(request.body, values)
        case Piece.REASONING, "/responses":
            return without_reasoning(request.body, values)
        case Piece.NO_REASONING, "/chat/completions":
            chat: Json = json.loads(request.body)
            give_back_reasoning(list_objects(chat.get("messages")))
            return MovedBody(to_json(chat).encode())
        case Piece.THINKING | Piece.SIGNATURE, "/chat/completions":
            return _without_signatures(request.body)
        case Piece.FILE, _:
            return _without_files(request.body, values)
        case _:
            return None


def _without_signatures(body: bytes) -> MovedBody:
    chat: Json = json.loads(body)
    gone: dict[str, None] = {}
    for message in list_objects(chat.get("messages")):
        for place in (message, *list_objects(message.get("tool_calls"))):
            for name in _SIGNED:
                if place.pop(name, None) is not None:
                    gone[name] = None
    return MovedBody(to_json(chat).encode(), tuple(gone)) if gone else MovedBody(body)


def _without_files(body: bytes, values: Collection[str] | None) -> MovedBody:
    asked: Json = json.loads(body)
    history = "input" if "input" in asked else "messages"
    gone = [f"{history}.{kind}" for kind in say_files(asked.get(history), values)]
    if isinstance(asked.get("container"), str):
        gone.append("container")
        del asked["container"]
    for tool in list_objects(asked.get("tools")):
        if isinstance(tool.get("container"), str):
            gone.append("tools.container")
            tool["container"] = {"type": "auto"}
    if not gone:
        return MovedBody(body)
    return MovedBody(to_json(asked).encode(), tuple(dict.fromkeys(gone)))


# A target's refusal counts for this long.
KEPT_S: Final = 86_400.0
# The most (target, endpoint) pairs, fields of each pair, and refused values.
KEPT: Final = 2048
MOST_FIELDS: Final = 32
VALUES: Final = 65_536
# One request may lose this many different pieces.
MOST_PIECES: Final = 2
# Stands for any refused field in the list of refused pieces.
FIELD: Final = "field"
# In later requests, the router removes these pieces only if the target refused their values.
_OF_VALUES: Final = frozenset({Piece.THINKING, Piece.REASONING, Piece.FILE})
_ELSEWHERE: Final = " of another target"
_VALUES: Final = re.compile(
    rb'"(?:signature|data|encrypted_content|file_id)"\s*:\s*"([^"]+)"|"id"\s*:\s*"(rs_[^"]+)"'
)
# Classes of refusals that may be about a field.
_OF_A_FIELD: Final = frozenset(
    {FailureClass.UNSUPPORTED, FailureClass.BAD_REQUEST, FailureClass.CONTEXT_WINDOW}
)
_BETA: Final = b"anthropic-beta"
_WORDS: Final = re.compile(r"[a-z]+")
Headers = tuple[tuple[bytes, bytes], ...]
# Provider, maker, endpoint.
Place = tuple[str, str, str]
# Fields that a target refuses, by the target's name.
LearnedFields = Callable[[], Mapping[str, Sequence[str]]]


class Repaired(NamedTuple):
    """A request for another try. refused: the piece that the target refused, or FIELD."""

    request: UpstreamRequest
    changed: tuple[str, ...]
    refused: str


class TargetRepairs(NamedTuple):
    """An endpoint's repairs, each with its expiry, by field. target: `provider/model`."""

    target: str
    repairs: Mapping[str, tuple[RequestRepair, float]]


class LearnedRepairs:
    """Repairs of targets, by provider, maker and endpoint. monotonic: a clock in seconds.

    An instance belongs to one worker: each worker learns by itself, and forgets after
    KEPT_S.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._by_target: BoundedMap[Place, TargetRepairs] = BoundedMap(KEPT)
        # By provider, maker and value.
        self._refused: BoundedMap[tuple[str, str, bytes], Piece] = BoundedMap(VALUES)
        self.any = False  # most routers have no repairs

    def apply(self, request: UpstreamRequest) -> tuple[UpstreamRequest, tuple[str, ...]]:
        """Returns the request as its target takes it, and the names of the changed parts."""
        repairs = self._current(request)
        less, lost = self._without_pieces(request, repairs)
        fields = [r for r in repairs if r.kind is not RepairKind.LEAVE_PIECE]
        sent, changed = _repaired(less, fields) if fields else (less, ())
        return sent, (*lost, *changed)

    def learn(
        self, request: UpstreamRequest, status: int, refusal: bytes, before: Sequence[str]
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
            for value in _values(request.body) - _values(less[0].body):
                self._refused.put((request.provider.name, request.maker, value), piece)
            self._keep(request, RequestRepair(RepairKind.LEAVE_PIECE, f"{piece}{_ELSEWHERE}"))
        return Repaired(*less, piece)

    def _learn_field(
        self, request: UpstreamRequest, status: int, refusal: bytes, error: Mapping[str, object]
    ) -> Repaired | None:
        if classify_status(status, refusal) not in _OF_A_FIELD:
            return None
        repair = find_repair(error, json.loads(request.body))
        if repair is None:
            return None
        if repair.kept:
            self._keep(request, repair)
        repaired, changed = _repaired(request, [repair])
        is_same = (repaired.body, repaired.headers) == (request.body, request.headers)
        return None if is_same else Repaired(repaired, changed, FIELD)

    def _without_pieces(
        self, request: UpstreamRequest, repairs: Iterable[RequestRepair]
    ) -> tuple[UpstreamRequest, tuple[str, ...]]:
        lost: tuple[str, ...] = ()
        for repair in repairs:
            if repair.kind is RepairKind.LEAVE_PIECE:
                piece = Piece(repair.field.removesuffix(_ELSEWHERE))
                of = request.provider.name, request.maker
                found = {
                    value.decode("utf-8", "replace")
                    for value in _values(request.body)
                    if self._refused.get((*of, value)) is piece
                }
                less = without_piece(request, piece, found) if found else None
                request, gone = less or (request, ())
                lost = (*lost, *gone)
        return request, lost

    def fields(self) -> Mapping[str, Sequence[str]]:
        """Returns the fields that each target refuses, by `provider/model`, for alerts and
        metrics.
        """
        now = self._monotonic()
        found: dict[str, set[str]] = {}
        for target, repairs in self._by_target.values():
            shown = {
                repair.shown
                for repair, until in repairs.values()
                if now < until and repair.kind is not RepairKind.RENAME  # same meaning
            }
            if shown:
                found.setdefault(target, set()).update(shown)
        return {target: sorted(shown) for target, shown in sorted(found.items())}

    def _keep(self, request: UpstreamRequest, repair: RequestRepair) -> None:
        now = self._monotonic()
        known = self._by_target.get(_place(request))
        kept = {
            field: (old, until)
            for field, (old, until) in (known.repairs if known else {}).items()
            if now < until and field != repair.field
        }
        latest = dict(list(kept.items())[1 - MOST_FIELDS :])
        latest[repair.field] = (repair, now + KEPT_S)
        target = f"{request.provider.name}/{json.loads(request.body).get('model')}"
        self._by_target.put(_place(request), TargetRepairs(target, latest))
        self.any = True

    def _current(self, request: UpstreamRequest) -> list[RequestRepair]:
        now = self._monotonic()
        known = self._by_target.get(_place(request))
        found = known.repairs.values() if known else ()
        return [repair for repair, until in found if now < until]


def _repaired(
    request: UpstreamRequest, repairs: Sequence[RequestRepair]
) -> tuple[UpstreamRequest, tuple[str, ...]]:
    """Applies repairs of fields. Removes beta headers that belong to the removed fields."""
    body, changed = repair_request(json.loads(request.body), repairs)
    sent_betas = _betas(request.headers)
    refused = {
        name.strip()
        for repair in repairs
        if repair.kind is RepairKind.LEAVE_BETA
        for name in repair.field.split(",")
    }
    named = [beta for beta in sent_betas if beta in refused]
    betas = [*named, *(beta for beta in sent_betas if _goes_with(beta, changed))]
    if not (changed or betas or any(r.kind is RepairKind.RENAME for r in repairs)):
        return request, ()
    headers = _without_betas(request.headers, betas)
    sent = replace(request, body=to_json(body).encode(), headers=headers)
    return sent, (*changed, *named)


def _values(body: bytes) -> set[bytes]:
    """Returns the signatures and ids in a body by which a refused piece is known again."""
    return {signed or id_ for signed, id_ in _VALUES.findall(body)}


def _place(request: UpstreamRequest) -> Place:
    maker = request.maker or str(json.loads(request.body).get("model"))
    return request.provider.name, maker, request.path


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
