"""The state of a routed request: its attempts, its progress, its answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from harness.frame.errors import InputError
from harness.frame.failures import ArmFailure, FailureClass
from harness.frame.people.access import OptOut
from harness.providers.credential import ProviderKey
from harness.providers.models.capabilities import Endpoint
from harness.routing.plan import ExclusionReason, RoutePlan
from harness.routing.reliability.breaker import Ticket
from harness.routing.table import Arm, Canary
from router.access.admission import RateReservation
from router.conversation.intake import AnswerIds
from router.frame.asgi import Scope
from router.frame.body import ClientRequest, to_json
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
from router.recording.port import Ticket as UnitTicket
from router.recording.scored_units import GuardrailSample
from router.recording.sums import CompletedRequest
from router.request.guardrail_probe import GuardrailProbe
from router.request.stream_relay import CommittedStream, OnEnd
from router.snapshot.compiled import CompiledRoute, CompiledTarget
from router.snapshot.route_plans import is_arm_charged
from router.upstream.reply_reading import read_error_body
from router.upstream.transport import UpstreamReply


@dataclass(slots=True)
class UpstreamAnswer:
    status: int
    headers: list[Header]
    body: bytes
    usage: TokenUsage | None
    members: ParsedObject  # as it was parsed
    model: str = ""  # the provider's, or empty
    dropped: tuple[str, ...] = ()  # dropped, refused, opening_s: as `UpstreamReply` has them
    refused: tuple[str, ...] = ()
    irregularity: str | None = None  # of its end
    opening_s: float = 0.0


async def read_refusal(reply: UpstreamReply) -> UpstreamFailed:
    body = await read_error_body(reply)
    told = {name.decode("latin-1"): decode_header(value) for name, value in reply.headers}
    failed = refusal_failure(reply.status, body, told.get("content-type", ""), told)
    failed.local = reply.local
    return failed


def check_content_type(headers: Sequence[Header], content_type: bytes) -> None:
    found = dict(headers).get(b"content-type", b"")
    if _media_type(found) != content_type:
        said = f"content type {decode_header(found)[:60]!r} instead of {content_type.decode()}"
        raise UpstreamFailed(FailureClass.MALFORMED, said)


def read_answer(
    reply: UpstreamReply,
    body: bytes,
    json_name: str | None,
    dialect: ChatDialect,
    request_body: str,
    *,
    silence: bool,
) -> UpstreamAnswer:
    """Reads a reply's body. request_body: the client's. Raises UpstreamFailed."""
    try:
        members = parse_object(body)
    except InputError as error:
        raise UpstreamFailed(FailureClass.MALFORMED, f"answer is not valid: {error}") from None
    usage = dialect.checked(members, silence=silence)
    edits: list[TextEdit] = []
    # In text: the same search in bytes takes three times as long.
    if dialect.call_mark in members.text or not members.found.get("id", True):
        answer = dict(members.found)
        changed = AnswerIds(request_body).mend(answer)
        edits = [member_edit(members, name, to_json(answer[name])) for name in changed]
    named = None
    if json_name is not None and not edits:
        named = members.with_text("model", json_name)
    if named is not None:
        body = named
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
def _media_type(content_type: bytes) -> bytes:
    return content_type.split(b";", 1)[0].strip().lower()


def decode_header(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


# Of a target that is left out: what would have failed had it been asked.
FAILING: Final = (ExclusionReason.OPEN, ExclusionReason.KEY, ExclusionReason.DATA_CLASS)


class RequestSpan(Protocol):
    """Traces attempts. passed_up: headers for the one that is under way."""

    @property
    def passed_up(self) -> tuple[Header, ...]: ...

    def attempt(self, upstream: CompiledTarget, number: int, settle: OnEnd) -> OnEnd:
        """An attempt begins; calling what is returned ends it, and calls `settle`."""
        ...


class AnswerCopy:
    """A copy of what a client got, for observers (F9); empty once it is too large."""

    def __init__(self, most_bytes: int) -> None:
        self.too_large = False
        self._room = most_bytes
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self._room -= len(piece)
        if self._room < 0:
            self.too_large = True
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    @property
    def text(self) -> str:
        return b"".join(self._pieces).decode("utf-8", "replace")

    def whole(self, result: object) -> str | None:
        if isinstance(result, UpstreamAnswer):
            self.add(result.body)
        return None if self.too_large else self.text


Hooks = tuple[tuple[RouterPart, Callable[..., None]], ...]


class ObserverHooks(NamedTuple):
    before_attempt: Hooks
    after_answer: Hooks
    at_end: Hooks


@dataclass(slots=True)
class RoutedRequest:
    """Holds one request, and what its observers leave for one another. What an observer alone
    needs to remember it keeps itself, by `request_id`. begun, deadline: on the event loop's
    clock. started: on the clock's monotonic time. From `revision` on: of clients' requests.
    """

    request: ClientRequest
    route: CompiledRoute
    arm: Arm
    plan: RoutePlan
    begun: float
    deadline: float
    passed_up: tuple[Header, ...] = ()  # headers of the client's that go to the provider
    # The client gave less time than the route: that it is up says nothing of a provider.
    hurried: bool = False
    revision: int = 0
    request_id: str = ""
    key_id: str = ""
    sticky_key: str = ""
    started: float = 0.0
    scope: Scope = field(default_factory=dict)
    experiment: Canary | None = None  # the rollout that the request is evidence for
    reservation: RateReservation | None = None  # None for a key without limits
    opt_outs: frozenset[OptOut] = frozenset()  # of the key; a header may add to them
    is_judged: bool = False  # drawn for the judge
    ticket: UnitTicket | None = None  # its place in the rollout's statistics
    probe: GuardrailProbe | None = None  # what the rollout's guardrails ask of its answer
    span: RequestSpan | None = None  # None without tracing
    copies: list[AnswerCopy] = field(default_factory=list)  # where a stream's events go as well
    record: CompletedRequest | None = None
    sample: GuardrailSample | None = None
    hooks: ObserverHooks | None = None  # of the observers that watch it

    @property
    def arm_target(self) -> str:
        return self.plan.guest or self.plan.incumbent

    def is_keep_warm_for(self, target: str) -> bool:
        return self.arm is Arm.KEEP_WARM and target == self.plan.guest

    @property
    def candidate_is_unable(self) -> bool:
        out = self.plan.guest_left_out
        return (
            self.arm is Arm.CANARY
            and out is not None
            and out.because is ExclusionReason.CAPABILITY
            and self.plan.incumbent in self.plan.targets
        )


@dataclass(slots=True)
class Attempt:
    """Describes an attempt: one to be made, or of a request, one that has ended."""

    upstream: CompiledTarget
    ticket: Ticket
    key: ProviderKey | None  # the one to use, None where it has none
    until: float  # on the event loop's clock
    number: int  # of its target, from 1
    endpoint: Endpoint
    check: bool = False  # of its health, by a request of our own
    caller: tuple[str, str] = ("", "")  # the request's
    # It was cut for being slow to begin, since another target stands behind.
    slow: bool = False
    failure: UpstreamFailed | None = None  # how it ended, if it did without an answer
    ms: float = 0.0  # what it took


@dataclass(slots=True)
class RequestProgress:
    attempts: list[Attempt] = field(default_factory=list)
    # Target ids whose breaker opened between the plan and their turn.
    shut_out: tuple[str, ...] = ()
    # What the client gets, None when all failed.
    result: UpstreamAnswer | CommittedStream | UpstreamFailed | None = None
    # first_token_s, last_token_s: of a stream, from the request to its first output, and to its
    # end.
    first_token_s: float | None = None
    last_token_s: float | None = None
    # When nobody answered, the seconds until each target may be asked again, 0 for now.
    waits: Mapping[str, float] | None = None

    @property
    def upstream(self) -> CompiledTarget | None:
        return self.attempts[-1].upstream if self.result is not None else None

    def shut(self, target: str) -> UpstreamFailed:
        self.shut_out = (*self.shut_out, target)
        return UpstreamFailed(FailureClass.OVERLOADED, "its circuit is open")

    def charge(self, job: RoutedRequest) -> str:
        """Names how the assigned arm failed; empty where it did not, or was shut out."""
        if not (job.plan.left_out or self.shut_out) and len(self.attempts) == 1:
            failure = self.attempts[0].failure
            if failure is None or not is_arm_charged(job.arm, [failure.failure]):
                return ""
            return failure.named
        failing = {
            excluded.target for excluded in job.plan.left_out if excluded.because in FAILING
        }
        if job.arm_target in failing:
            return ArmFailure.CIRCUIT_OPEN.value
        if job.plan.left_out and job.candidate_is_unable:
            return ArmFailure.UNABLE.value
        last = {attempt.upstream.id: attempt.failure for attempt in self.attempts}
        own = last.get(job.arm_target)
        classes = [failed.failure if failed else None for failed in last.values()]
        return own.named if own and is_arm_charged(job.arm, classes) else ""
