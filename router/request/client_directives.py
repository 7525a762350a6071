"""Reads a request's directives to the router, from headers and body, and its caller.

The `x-swapproof-…` headers, the kind of a request (for a route's overrides) and the sticky
key are read here. The names that other products give a caller are in
`router.protocols.caller_names`. This module decides nothing: `model_endpoint` and `planner`
use the values.
"""

import marshal
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple
from urllib.parse import unquote
from weakref import ReferenceType, ref

from harness.frame.people.audience import CallerClaims, Claim
from harness.providers.models.capabilities import Endpoint
from harness.routing.route_settings import Overrides, RequestKind
from harness.routing.table import KeyGrant, choose_kind, choose_predicate
from router.frame.asgi import Scope, header
from router.frame.body import ClientRequest, iter_objects
from router.frame.replies import LISTS, Header, Reply, error_reply
from router.protocols.caller_names import (
    OPENING,
    body_callers,
    body_persons,
    header_caller,
    header_persons,
)
from router.protocols.endpoints import DIALECTS, ENDPOINTS
from router.request.caller_patience import read_patience_s
from router.request.needs import COUNT_PATHS
from router.snapshot.compiled import CompiledSnapshot

_DIGEST_BYTES: Final = 16
# In marshal's later formats, the bytes depend on more than the value.
_MARSHAL_FORMAT: Final = 2


def digest_opening(opening: list[object]) -> str:
    """Returns the hexadecimal digest (16 bytes) of a conversation's opening, for a sticky
    key.

    Args:
        opening: parsed JSON, see `caller_names.conversation_opening`.

    The digest depends on the value alone, so that all workers agree.
    """
    # Not JSON, which takes ten times as long for a picture in the first message.
    encoded = marshal.dumps(opening, _MARSHAL_FORMAT)
    return blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest()


# The types of parts in chats, responses and messages that hold pictures or videos.
PARTS: Final[Mapping[str, RequestKind]] = {
    **dict.fromkeys(("image_url", "input_image", "image"), RequestKind.VISION),
    **dict.fromkeys(("video_url", "input_video", "video"), RequestKind.VIDEO),
}
# The fields in which a turn, or a tool's result in it, has its parts.
_HOLDERS: Final = ("content", "output")
MAKES_IMAGES: Final = "image_generation"


def detect_kinds(request: ClientRequest) -> frozenset[RequestKind]:
    """Returns the kinds of a request by its content: embedding, picture or video input,
    image output.

    Empty for a text. The parts of all turns count, because a conversation with a picture
    needs a model that sees, even if its last turn is text.
    """
    if request.endpoint is Endpoint.EMBEDDINGS:
        return frozenset({RequestKind.EMBEDDING})
    turns = (request.value("messages"), request.value("input"))
    kinds = {
        PARTS[part_type]
        for turn in turns
        for part_type in _iter_part_types(turn)
        if part_type in PARTS
    }
    if _wants_image(request):
        kinds.add(RequestKind.IMAGE)
    return frozenset(kinds)


def _iter_part_types(value: object) -> Iterator[str]:
    """Yields the `type` of each part, also of parts in a tool's result."""
    for part in iter_objects(value):
        kind = part.get("type")
        if isinstance(kind, str):
            yield kind
        for holder in _HOLDERS:
            yield from _iter_part_types(part.get(holder))


def _wants_image(request: ClientRequest) -> bool:
    modalities = request.value("modalities")
    if isinstance(modalities, list) and "image" in modalities:
        return True
    tools = iter_objects(request.value("tools"))
    return any(tool.get("type") == MAKES_IMAGES for tool in tools)


def find_override(
    overrides: Overrides,
    predicates: Sequence[str],
    request: ClientRequest,
    declared: RequestKind | None,
    find_header: Callable[[str], str | None],
) -> str | None:
    """Returns the predicate of the override that answers a request; None without one.

    A kind precedes the other predicates.

    Args:
        predicates: the result of `table.list_predicates`.
        declared: the kind in the client's header; without it, the content decides.
    """
    detected = detect_kinds(request) if declared is None else ()
    kind = choose_kind(overrides, declared, detected)
    if kind is not None or not predicates:
        return kind
    return choose_predicate(
        predicates,
        request.endpoint.value,
        find_header,
        has_tools=bool(request.value("tools")),
    )


STICKY: Final = b"x-swapproof-sticky"
KIND: Final = b"x-swapproof-kind"
LONGEST_TEMPLATE: Final = 20  # in messages of the user
TASK: Final = b"x-swapproof-task"
TIMEOUT: Final = b"x-swapproof-timeout"
HEARTBEAT: Final = b"x-swapproof-heartbeat"
KINDS: Final = {kind.value.encode(): kind for kind in RequestKind}


@dataclass(frozen=True, slots=True)
class Directives:
    """The directives in a request's headers; a refusal replaces an invalid value.

    sticky: the sticky header, else a header that names the caller; None without both.
    kind: the declared kind; None if the router must detect it.
    task: a task's name. If the snapshot knows it, its route answers instead of `model`.
    timeout_s: for the whole request; infinite unless the client sets it.
    patience_s: until the first output; infinite unless a header of the client tells it.
    takes_heartbeat: False if the client refuses comments in a silent stream.
    """

    sticky: bytes | None
    kind: RequestKind | Reply | None
    task: bytes | None
    timeout_s: float | Reply
    patience_s: float
    takes_heartbeat: bool


def read_directives(scope: Scope) -> Directives:
    """Reads the directives from the head."""
    return Directives(
        sticky=header(scope, STICKY) or header_caller(scope["headers"]),
        kind=_read_kind(header(scope, KIND)),
        task=header(scope, TASK),
        timeout_s=_read_timeout_s(header(scope, TIMEOUT)),
        patience_s=read_patience_s(scope["headers"]),
        takes_heartbeat=header(scope, HEARTBEAT) != b"off",
    )


class HeadPlan(NamedTuple):
    """The meaning of a request's head while one revision serves.

    Requests with the same head on a connection share it.

    revision: a weak reference, because an idle connection may outlive its revision by hours.
    grant: of the caller's key.
    passed_up: the headers for the provider.
    is_plain: whether the head announces JSON without an encoding.
    """

    revision: ReferenceType[CompiledSnapshot]
    grant: KeyGrant
    directives: Directives
    passed_up: tuple[Header, ...]
    is_plain: bool


def plan_head(
    scope: Scope,
    serving: CompiledSnapshot,
    grant: KeyGrant,
    *,
    is_plain: bool,
) -> HeadPlan:
    """Reads a head for a revision. A path without a model passes no headers up."""
    path = scope["path"]
    endpoint = ENDPOINTS.get(path) or COUNT_PATHS.get(path)
    passed_up = client_headers(scope, DIALECTS[endpoint].passed_up) if endpoint else ()
    return HeadPlan(ref(serving), grant, read_directives(scope), passed_up, is_plain)


def sticky_key(
    request: ClientRequest,
    header: bytes | None,
    key_id: str,
) -> str:
    """Returns the header, else the body's caller, else the opening, else an empty text. If the
    provider stores the turns, the body has no opening. Then the client key is the caller,
    because another provider does not know the turns.
    """
    if header:
        return f"header:{header.decode('latin-1')}"
    if callers := body_callers(request.members.found):
        return callers[0]
    if opening := DIALECTS[request.endpoint].opening(request):
        return f"{OPENING}{digest_opening(opening)}"
    return f"key:{key_id}" if request.endpoint is Endpoint.RESPONSES else ""


def conversation_keys(request: ClientRequest) -> Iterator[str]:
    """Yields names of a conversation; each name covers one more message of the user.

    An application may begin all its conversations with the same messages. `ModelEndpoint`
    takes the first name that distinguishes the conversation. Ends after LONGEST_TEMPLATE
    names, or when the conversation has no more messages of the user.
    """
    dialect = DIALECTS[request.endpoint]
    for skipped in range(LONGEST_TEMPLATE):
        opening = dialect.opening(request, skipped)
        if not opening:
            return
        yield f"{OPENING}{digest_opening(opening)}"


def read_claims(
    scope: Scope, sticky: bytes | None, request: ClientRequest, key_name: str
) -> CallerClaims:
    """Returns what a request says about its caller, for a canary's audience.

    Args:
        sticky: the caller's name in a header, or a flag's targeting key.
        key_name: of the client's key.

    All lines of a header count, each also as the parts of a list, because a proxy may join
    lines. The body's field is read as its client sent it.
    """
    headers: Sequence[Header] = scope["headers"]

    def read_header(name: str) -> Sequence[Claim]:
        wanted = name.encode("latin-1", "replace")
        values = [_decode(bytes(value)) for key, value in headers if key == wanted]
        parts = [part.strip() for value in values if "," in value for part in value.split(",")]
        return [*values, *parts]

    fields = request.members.found
    users: list[Claim] = [
        claim for person in body_persons(fields) for claim in _list_claims(person)
    ]
    persons = [_decode(name.encode("latin-1", "replace")) for name in header_persons(headers)]
    # W3C's baggage has percent-encoded values.
    users += [*persons, *(unquote(name) for name in persons if "%" in name)]
    users += read_header(STICKY.decode())
    users += [_decode(sticky)] if sticky else []
    return CallerClaims(key_name, users, read_header, lambda path: _read_field(fields, path))


def _decode(value: bytes) -> str:
    """Decodes a header's value: UTF-8, which most clients send, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _read_field(fields: Mapping[str, object], path: str) -> Sequence[Claim]:
    value: object = fields
    for name in path.split("."):
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            return (None,)
        value = value.get(name)
    return _list_claims(value)


def _list_claims(value: object) -> Sequence[Claim]:
    """Returns a value's texts; None for a part that is no text and no whole number."""
    match value:
        case None:
            return ()
        case bool():
            return (None,)
        case str() | int():
            return (str(value),)
        case list():
            return [claim for part in value for claim in _list_claims(part) or (None,)]
        case _:
            return (None,)


def caller_keys(request: ClientRequest, sticky_key: str) -> Sequence[str]:
    """Lists the names under which a caller may be found again, for feedback and captures.

    They are the callers that the body names, then the sticky key, which a header may set,
    then the prompt cache's key.
    """
    cache_key = request.value("prompt_cache_key")
    cache_keys = (
        [f"prompt_cache_key:{cache_key}"] if cache_key and isinstance(cache_key, str) else ()
    )
    return [*body_callers(request.members.found), sticky_key, *cache_keys]


def _read_kind(value: bytes | None) -> RequestKind | Reply | None:
    if value is None:
        return None
    kind = KINDS.get(value)
    if kind is not None:
        return kind
    value_text = value[:40].decode("latin-1")
    return error_reply(
        400,
        f"{KIND.decode()} is one of {', '.join(RequestKind)}, not {value_text!r}",
        "invalid_header",
    )


def _read_timeout_s(value: bytes | None) -> float | Reply:
    """Returns the client's time limit in seconds, infinity without one, or the refusal."""
    if value is None:
        return math.inf
    try:
        # float() alone would accept "1_0".
        timeout_s = math.nan if b"_" in value else float(value)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        value_text = value[:40].decode("latin-1")
        return error_reply(
            400,
            f"{TIMEOUT.decode()} is a number of seconds above 0, not {value_text!r}",
            "invalid_header",
        )
    return timeout_s


def client_headers(scope: Scope, defaults: Mapping[bytes, bytes]) -> tuple[Header, ...]:
    """Chooses headers for the provider. The default replaces an invalid value.

    Args:
        defaults: the headers that the endpoint's dialect passes up, with their default values.
            An empty default drops the header if the client sends none.

    A value is valid if it is printable ASCII.
    """
    candidates = (
        (name, _join_header(scope, name), default) for name, default in defaults.items()
    )
    headers = (
        (name, value if value and value.isascii() and value.decode().isprintable() else default)
        for name, value, default in candidates
    )
    return tuple((name, value) for name, value in headers if value)


def _join_header(scope: Scope, name: bytes) -> bytes | None:
    """Returns a header's value, with the lines of a list joined (RFC 9110, section 5.3)."""
    if name.decode() not in LISTS:
        return header(scope, name)
    return b",".join(bytes(value) for key, value in scope["headers"] if key == name)
