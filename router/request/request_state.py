"""The state of a routed request: its attempts, its progress, its answer.

Data only, with the reading of a provider's plain answer into `UpstreamAnswer`. One
`RoutedRequest` and one `RequestProgress` pass through `dispatch`, `routed_response` and the
observers. No code here waits for a client or chooses a target.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from harness.frame.errors import InputError
from harness.frame.failures import ArmFailure, FailureClass
from harness.frame.people.access import OptOut
from harness.gate.online.outcome import ExposureOutcome
from harness.gate.online.reading.scored_exposures import GuardrailSample
from harness.providers.answer_signs import AnswerOrigin
from harness.providers.credential import ProviderKey
from harness.providers.models.capabilities import Endpoint
from harness.routing.plan import ExclusionReason, RoutePlan, TargetAvailability
from harness.routing.reliability.breaker import Ticket
from harness.routing.reliability.slowdown import RequestSize
from harness.routing.table import Arm, Canary
from router.access.admission import RateReservation
from router.conversation.intake import AnswerIds
from router.conversation.split_choices import join_choices, may_ask_for_several
from router.frame.asgi import Scope
from router.frame.body import ClientRequest, list_objects, to_json
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import (
    ParsedObject,
    TextEdit,
    apply_edits,
    member_edit,
    parse_object,
)
from router.frame.replies import Header, passed_on
from router.protocols.answers import TokenUsage
from router.protocols.chat.dialect import ChatDialect
from router.protocols.event_stream import Irregularity
from router.protocols.provider_failures import refusal_failure
from router.recording.internal_errors import RouterPart
from router.recording.port import Ticket as ExposureTicket
from router.recording.sums import CompletedRequest
from router.request.guardrail_probe import GuardrailProbe
from router.request.stream_relay import CommittedStream, OnEnd
from router.snapshot.compiled import CompiledRoute, CompiledTarget
from router.upstream.reply_reading import read_error_body
from router.upstream.transport import UpstreamReply


@dataclass(slots=True)
class UpstreamAnswer:
    """A provider's plain answer, as the client gets it.

    body: with the model's name and mended ids, else unchanged.
    usage: None if the provider counts no tokens.
    irregularity: a fault of the answer's end that the client still gets, such as no finish
    reason; None if all is well.
    opening_s: the seconds for opening the provider's connection; 0 for an open one.
    is_fallback: a gateway marks the answer as its fallback's.
    """

    status: int
    headers: list[Header]
    body: bytes
    usage: TokenUsage | None
    members: ParsedObject  # as parsed
    # The provider's name for it; empty without one, and in a gateway's fallback answer.
    model: str = ""
    dropped: tuple[str, ...] = ()  # dropped, refused, opening_s: see `UpstreamReply`
    refused: tuple[str, ...] = ()
    irregularity: str | None = None
    opening_s: float = 0.0
    is_fallback: bool = False

    def note_origin(self, origin: AnswerOrigin) -> None:
        """Notes the headers that say which model answered. They precede the body's name."""
        self.is_fallback = origin.is_fallback
        self.model = "" if origin.is_fallback else origin.model or self.model


async def read_refusal(reply: UpstreamReply) -> UpstreamFailed:
    """Reads an error reply of a provider, and returns its failure. The caller raises it."""
    body = await read_error_body(reply)
    headers = {name.decode("latin-1"): decode_header(value) for name, value in reply.headers}
    failed = refusal_failure(reply.status, body, headers.get("content-type", ""), headers)
    failed.local = reply.local
    failed.unable = reply.unable
    return failed


def check_content_type(headers: Mapping[bytes, bytes], content_type: bytes) -> None:
    """Raises UpstreamFailed (MALFORMED) if the reply has another content type. Parameters of
    the type do not matter.
    """
    received = headers.get(b"content-type", b"")
    if received != content_type and _read_media_type(received) != content_type:
        detail = (
            f"content type {decode_header(received)[:60]!r} instead of {content_type.decode()}"
        )
        raise UpstreamFailed(FailureClass.MALFORMED, detail)


def read_answer(
    reply: UpstreamReply,
    body: bytes,
    json_name: str | None,
    dialect: ChatDialect,
    request_body: str,
    *,
    silence: bool,
) -> UpstreamAnswer:
    """Reads a reply's body. Raises UpstreamFailed if it is not an answer of the protocol.

    Args:
        json_name: the model's name for the client, as JSON; None to keep the provider's.
        request_body: the client's. The ids of the answer's tool calls must differ from its ids.
        silence: whether the route accepts an answer without content.

    Only the model's name, faulty ids and an answer in several choices change; every other
    byte stays as the provider sent it.
    """
    try:
        members = parse_object(body)
    except InputError as error:
        raise UpstreamFailed(FailureClass.MALFORMED, f"answer is not valid: {error}") from None
    usage = dialect.checked(members, silence=silence)
    edits: list[TextEdit] = []
    # Search in text, because a search in bytes takes three times as long.
    if dialect.call_mark in members.text or not members.found.get("id", True):
        answer = dict(members.found)
        choices = answer.get("choices")
        is_split = (
            isinstance(choices, list)
            and len(choices) > 1
            and not may_ask_for_several(request_body)
        )
        if is_split:
            answer["choices"] = [join_choices(list_objects(choices))]
        changed = AnswerIds(request_body).mend(answer)
        if is_split:
            changed = list(dict.fromkeys(("choices", *changed)))
        edits = [member_edit(members, name, to_json(answer[name])) for name in changed]
    renamed_body = None
    if json_name is not None and not edits:
        renamed_body = members.with_text("model", json_name)
    if renamed_body is not None:
        body = renamed_body
    elif edits or json_name is not None:
        place = members.text_place("model") if json_name is not None else None
        if place and json_name:
            edits.append(TextEdit(place.start, place.end, json_name))
        body = apply_edits(members.text, edits)
    model = members.get("model")
    return UpstreamAnswer(
        reply.status,
        passed_on(reply.headers),
        body,
        usage,
        members,
        model if isinstance(model, str) else "",
        reply.dropped,
        reply.refused,
        Irregularity.NO_FINISH_REASON if reply.unended else dialect.irregularity(members),
        reply.opening_s,
    )


@lru_cache(maxsize=256)
def _read_media_type(content_type: bytes) -> bytes:
    return content_type.split(b";", 1)[0].strip().lower()


def decode_header(value: bytes) -> str:
    """Decodes a header's value without loss: bytes that are not UTF-8 become surrogates."""
    return value.decode("utf-8", "surrogateescape")


# By the reason why a plan leaves a target out: how the target would have failed.
FAILING: Final = {
    ExclusionReason.OPEN: ArmFailure.CIRCUIT_OPEN,
    ExclusionReason.KEY: ArmFailure.NO_KEY,
    ExclusionReason.DATA_CLASS: ArmFailure.DATA_CLASS,
}


class RequestSpan(Protocol):
    """Traces attempts. passed_up: headers for the attempt under way.

    `router.observers.request_tracing` implements it; the request knows only this protocol.
    """

    @property
    def passed_up(self) -> tuple[Header, ...]: ...

    def attempt(
        self,
        upstream: CompiledTarget,
        number: int,
        settle: OnEnd,
    ) -> OnEnd:
        """Begins an attempt; the returned function ends it, and calls `settle`."""
        ...


class AnswerCopy:
    """A copy of the client's answer for observers; empty once it is too large.

    most_bytes: the size up to which a copy is kept. A part of an answer would mislead a
    judge or a shadow, so a copy has the whole answer or nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self.too_large = False
        self._bytes_left = most_bytes
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            self.too_large = True
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    @property
    def text(self) -> str:
        return b"".join(self._pieces).decode("utf-8", "replace")

    def whole(self, result: object) -> str | None:
        """Returns the whole answer, as JSON or as events; None if it was too large.

        Args:
            result: the request's result.

        A plain answer is copied only here, a stream's pieces by `add`.
        """
        if isinstance(result, UpstreamAnswer):
            self.add(result.body)
        return None if self.too_large else self.text


Hooks = tuple[tuple[RouterPart, Callable[..., None]], ...]


class ObserverHooks(NamedTuple):
    """The hooks to call for one request, each with the part that its faults are noted for.

    finish: `after_answer` of all observers, then `at_end` of all observers.
    """

    begin: Hooks
    finish: Hooks


@dataclass
class RoutedRequest:
    """One request, with the data that observers share.

    An observer keeps its private data outside this object, by `request_id`. begun, deadline: on
    the event loop's clock. started: on the clock's monotonic time. Only clients' requests have
    `revision` and the fields after it. Class attributes hold the values that most requests
    keep, because setting them on each request would take time. `dataclasses.replace` does not
    copy these fields: the request of a shadow or a judge begins without span and probe.
    """

    request: ClientRequest
    route: CompiledRoute
    arm: Arm
    plan: RoutePlan
    begun: float
    deadline: float
    passed_up: tuple[Header, ...] = ()  # the client's headers that go to the provider
    # The client set a shorter time limit than the route: reaching it is not a provider's fault.
    hurried: bool = False
    revision: int = 0
    request_id: str = ""
    key_id: str = ""
    sticky_key: str = ""
    started: float = 0.0
    scope: Scope = field(default_factory=dict)
    experiment: Canary | None = None  # the rollout that counts the request as evidence
    reservation: RateReservation | None = None  # None if the key has no limits
    opt_outs: frozenset[OptOut] = frozenset()  # the key's; a header may add more
    # Sampled for the judge.
    is_judged: bool = field(default=False, init=False)
    # Its place in the rollout's statistics.
    ticket: ExposureTicket | None = field(default=None, init=False)
    # Measures the answer for the rollout's guardrails.
    probe: GuardrailProbe | None = field(default=None, init=False)
    # None if tracing is off.
    span: RequestSpan | None = field(default=None, init=False)
    # Receive a stream's events as well.
    copies: Sequence[AnswerCopy] = field(default=(), init=False)
    record: CompletedRequest | None = field(default=None, init=False)
    # How its exposure ended; None until the end, or if an observer failed.
    outcome: ExposureOutcome | None = field(default=None, init=False)
    sample: GuardrailSample | None = field(default=None, init=False)
    # When the caller is likely to leave without output, on the event loop's clock. The
    # last target of the plan may begin its output later.
    answer_by: float = field(default=math.inf, init=False)
    # Of the observers that watch this request.
    hooks: ObserverHooks | None = field(default=None, init=False)

    @property
    def arm_target(self) -> str:
        """The id of the target that the arm's evidence is about: the plan's guest, else the
        incumbent.
        """
        return self.plan.guest or self.plan.incumbent

    def is_keep_warm_for(self, target: str) -> bool:
        """Whether the request warms this target. The incumbent answers if the target fails
        once.
        """
        return self.arm is Arm.KEEP_WARM and target == self.plan.guest


# The caller of a call that no user waits for.
NO_CALLER: Final = ("", "")


@dataclass
class Attempt:
    """An attempt that is to be made, is under way, or has ended.

    Class attributes hold the values that most attempts keep, because setting them on each
    attempt would take time.
    """

    upstream: CompiledTarget
    ticket: Ticket
    key: ProviderKey | None  # None if the provider needs no key
    until: float  # on the event loop's clock
    number: int  # counts the attempts at this target from 1
    endpoint: Endpoint
    caller: tuple[str, str] = NO_CALLER  # the sticky key and the API key of the request
    impatient: bool = False  # its time is a share of the caller's patience (`answer_by`)
    check: bool = False  # a health check, by the router's own request
    # The request's, if it tests a slowed target.
    probe_size: RequestSize | None = None
    # On the event loop's clock.
    began: float = field(default=0.0, init=False)
    # The pause that the provider asked for; None without one.
    retry_after_s: float | None = field(default=None, init=False)
    # The router cut it because it was slow to begin and another target follows.
    slow: bool = field(default=False, init=False)
    # The target's circuit is not closed, and another target can answer.
    probe: bool = field(default=False, init=False)
    # The target's circuit opened while it waited: the next one answers.
    moved: bool = field(default=False, init=False)
    # Its time limit was the client's own deadline, or a share of it.
    hasty: bool = field(default=False, init=False)
    # When it began, if it was cancelled before any byte came, on the event loop's clock.
    silent_since: float | None = field(default=None, init=False)
    failure: UpstreamFailed | None = field(default=None, init=False)  # None if it answered
    ms: float = field(default=0.0, init=False)  # its duration


@dataclass
class RequestProgress:
    """The attempts of a request so far, and its result."""

    attempts: list[Attempt] = field(default_factory=list)
    # Under way; None between attempts, and if the last one has ended. A caller who leaves cuts
    # it off, so that it does not get into `attempts`.
    current: Attempt | None = field(default=None, init=False)
    # Ids of planned targets that the router did not ask: since the plan, their circuit opened,
    # or another request took their turn.
    shut_out: tuple[str, ...] = field(default=(), init=False)
    # The client's answer; None if all targets failed.
    result: UpstreamAnswer | CommittedStream | UpstreamFailed | None = field(
        default=None, init=False
    )
    # first_token_s, last_token_s: seconds from the request to a stream's first output and end.
    first_token_s: float | None = field(default=None, init=False)
    last_token_s: float | None = field(default=None, init=False)
    # If all targets failed: when each target may be asked again.
    waits: Mapping[str, TargetAvailability] | None = field(default=None, init=False)

    @property
    def upstream(self) -> CompiledTarget | None:
        """The target that answered, or whose error the client gets; None if all targets
        failed.
        """
        return self.attempts[-1].upstream if self.result is not None else None

    def shut(self, target: str) -> UpstreamFailed:
        """Notes that the router does not ask a target of the plan, and returns the failure that
        stands for it.
        """
        self.shut_out = (*self.shut_out, target)
        return UpstreamFailed(FailureClass.OVERLOADED, "its circuit is open, or it is slowed")
