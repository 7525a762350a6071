"""Makes one attempt: returns an answer, or a stream after its first output.

It writes the request for the target, sends it, and reads the reply up to the commit point.
It does not retry, choose a target, or record an outcome: `dispatch` does. Connections and
translations are in `router.upstream`, the protocols' rules in `router.protocols`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from harness.frame.failures import FailureClass, Reach
from harness.providers.answer_signs import (
    ORIGIN_HEADERS,
    read_origin,
    reports_no_tokens,
    reports_tokens,
)
from harness.providers.credential import hide_provider_secrets
from harness.providers.models.capabilities import Endpoint
from harness.routing.route_settings import OnBadEvent, OnEmptyAnswer
from harness.routing.settings import AnsweredModel, RouterSettings
from router.conversation.prefill_forms import mark_prefill
from router.frame.body import ClientRequest, list_objects, to_json
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import apply_edits, member_edit, parse_object
from router.frame.limits import Timers
from router.health.account_watch import AccountWatch
from router.health.answered_ends import AnsweredEnds
from router.protocols.answer_signals import AnswerSignals
from router.protocols.chat.dialect import CHAT
from router.protocols.endpoints import DIALECTS, EMBEDDINGS
from router.protocols.event_stream import StreamFilter
from router.protocols.provider_refusals import GOOD_STATUSES
from router.protocols.vector_encoding import BASE64, encode_vectors
from router.request.needs import (
    PROVIDER_PATHS,
    build_count_body,
    lost_features,
    remove_fields,
)
from router.request.request_state import (
    NO_CALLER,
    Attempt,
    RoutedRequest,
    UpstreamAnswer,
    check_content_type,
    read_answer,
    read_refusal,
)
from router.request.stream_relay import CommittedStream, OnEnd
from router.snapshot.compiled import CompiledTarget
from router.upstream.transport import (
    TransportFactory,
    UpstreamReply,
    UpstreamRequest,
)

# Up to Python 3.11, to find a member in its class takes ten times as long.
_CHAT: Final = Endpoint.CHAT
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
_ACCEPT: Final = OnEmptyAnswer.ACCEPT
# The most bytes before the first output; providers send less metadata.
MAX_HELD_BYTES: Final = 1024 * 1024
# The most bytes of an answer to a health check, which asks for a few tokens. A broken provider
# may send anything.
MAX_CHECK_BYTES: Final = 1024 * 1024


class CountedUsage:
    """Remembers the targets whose answers report tokens, for one event loop.

    If such a target answers with a text and a usage of 0 tokens, the answer is malformed: a
    gateway wrote an error as an answer. A rollout's rule names the targets whose answers in
    evals reported tokens.
    """

    def __init__(self) -> None:
        self.targets: set[str] = set()

    def require_tokens(
        self,
        job: RoutedRequest,
        attempt: Attempt,
        reply: UpstreamReply,
        answer: UpstreamAnswer,
    ) -> None:
        """Raises UpstreamFailed (MALFORMED) for a plain answer with a text and 0 tokens."""
        is_translated = _is_translated(job, attempt)
        reported_usage = reply.given_usage if is_translated else answer.members.get("usage")
        if not (reports_no_tokens(reported_usage) and self._reports_tokens(job, attempt)):
            return
        signals = AnswerSignals(keeps=False)
        DIALECTS[job.request.endpoint].note_signals(signals, answer.members)
        if signals.text_length:
            raise UpstreamFailed(FailureClass.MALFORMED, _NO_TOKENS)

    def stream_failure(
        self,
        job: RoutedRequest,
        attempt: Attempt,
        reply: UpstreamReply,
        events: StreamFilter,
    ) -> FailureClass | None:
        """Returns the failure of a stream that ended with a text and 0 tokens; else None.

        The client has the text already, so the failure is only charged. Without signals, which
        only exposures collect, the router does not know whether there was a text.
        """
        usage = events.usage
        # Most streams end here, without a call.
        if job.request.endpoint is _CHAT and (usage is None or usage[0] or usage[1]):
            if usage is not None:
                self.targets.add(attempt.upstream.id)
            return None
        is_translated = _is_translated(job, attempt)
        reported_usage = reply.given_usage if is_translated else events.given_usage
        if reports_tokens(reported_usage):
            self.targets.add(attempt.upstream.id)
            return None
        signals = events.signals
        is_suspect = signals is not None and signals.text_length > 0
        if not (is_suspect and reports_no_tokens(reported_usage)):
            return None
        return FailureClass.MALFORMED if self._reports_tokens(job, attempt) else None

    def _reports_tokens(self, job: RoutedRequest, attempt: Attempt) -> bool:
        """Returns whether the target reports tokens."""
        trial = job.route.route.experiment
        eval_targets = trial.unit_rule.counts_usage if trial is not None else ()
        target = attempt.upstream.id
        is_counted = target in self.targets or target in eval_targets
        return is_counted and job.request.endpoint is not _EMBEDDINGS


def _is_translated(job: RoutedRequest, attempt: Attempt) -> bool:
    """Returns whether the router wrote the answer's usage: Messages and Responses require one,
    so a 0 may be the router's own.
    """
    endpoint = job.request.endpoint
    return endpoint is not _CHAT and endpoint in attempt.upstream.adapted


_NO_TOKENS: Final = "the answer reports 0 tokens for its text, unlike earlier answers"


class UpstreamCalls:
    """Makes attempts.

    The caller limits an attempt by cancelling it; a stream has its own limits after its
    first output.
    """

    def __init__(
        self,
        transport_for: TransportFactory,
        settings: RouterSettings,
        timers: Timers,
        accounts: AccountWatch,
        ends: AnsweredEnds,
    ) -> None:
        self.timers = timers
        self._accounts = accounts
        self._ends = ends
        self._due = accounts.due
        self._transport_for = transport_for
        self._between_s = settings.between_chunks_timeout_s
        self._names_route = settings.response_model is AnsweredModel.ROUTE
        self._counted_usage = CountedUsage()

    async def make(
        self,
        job: RoutedRequest,
        attempt: Attempt,
        on_end: OnEnd,
        on_head: Callable[[], None] | None = None,
    ) -> UpstreamAnswer | CommittedStream:
        """Makes an attempt. Raises UpstreamFailed, without our credentials in its body and
        detail.

        Args:
            on_end: called once with the outcome of a returned stream, at its close.
            on_head: called when a good answer begins.

        The caller settles all other ends.

        A status outside 200–299 is a failure. So is a good status with a body that does not
        follow the protocol. Cancelling the call closes the reply.
        """
        request = job.request
        dialect = DIALECTS[request.endpoint]
        accepts_silence = job.route.route.settings.on_empty_answer is _ACCEPT
        reply: UpstreamReply | None = None
        try:
            transport = self._transport_for(attempt.upstream.provider)
            reply = await transport.send(_build_request(job, attempt))
            if reply.status not in GOOD_STATUSES:
                raise await read_refusal(reply)
            if attempt.upstream.id in self._due:
                self._accounts.note_answer(attempt.upstream, attempt.key, reply.headers)
                self._ends.note_answer(attempt.upstream, reply.headers)
            if on_head is not None:
                on_head()
            if request.stream:
                check_content_type(reply.named, b"text/event-stream")
                events = self._build_filter(job)
                events.estimates_input = reply.estimates_input
                held = await _read_until_commit(reply, events, _limit_held_bytes(job))
                stream = self._build_stream(job, attempt, reply, events, on_end, held)
                reply = None  # the stream closes it
                return stream
            check_content_type(reply.named, b"application/json")
            name = job.route.json_name if self._names_route else None
            body = await reply.body()
            answer = read_answer(
                reply, body, name, dialect, request.text, silence=accepts_silence
            )
            if not ORIGIN_HEADERS.isdisjoint(reply.named):
                answer.note_origin(read_origin(reply.headers))
            usage = answer.usage
            target = attempt.upstream.id
            if usage is not None and not (usage[0] or usage[1]):
                self._counted_usage.require_tokens(job, attempt, reply, answer)
            elif usage is not None and target not in self._counted_usage.targets:
                self._counted_usage.targets.add(target)
            return (
                _check_vectors(request, answer) if request.endpoint is _EMBEDDINGS else answer
            )
        except UpstreamFailed as failed:
            self._note_failed(attempt, failed)
            raise
        finally:
            if reply is not None:
                await reply.aclose()

    def _note_failed(self, attempt: Attempt, failed: UpstreamFailed) -> None:
        """Reports a 429, and hides our credentials: a client may see the body, and logs contain
        the detail.

        A 429 about this request's own size says nothing about the account.
        """
        provider = attempt.upstream.provider
        is_limited = failed.failure is FailureClass.RATE_LIMITED and not failed.local
        if is_limited and failed.reach is not Reach.REQUEST:
            self._accounts.note_refusal(
                attempt.upstream,
                attempt.key,
                failed.headers,
                of_user=attempt.caller != NO_CALLER,
            )
        failed.body = hide_provider_secrets(failed.body, provider, attempt.key)
        detail = failed.detail.encode("utf-8", "surrogatepass")
        hidden = hide_provider_secrets(detail, provider, attempt.key)
        failed.detail = hidden.decode("utf-8", "surrogatepass")

    async def count_tokens(self, job: RoutedRequest, attempt: Attempt) -> bytes:
        """Asks for a count; empty if the target speaks another protocol.

        Returns the body of the provider's answer, which has the protocol of the request.
        Raises UpstreamFailed.
        """
        upstream = attempt.upstream
        endpoint = job.request.endpoint
        if endpoint in upstream.adapted:
            return b""
        body = build_count_body(_write_body(job, upstream), endpoint)
        request = replace(
            _build_request(job, attempt), body=body, path=PROVIDER_PATHS[endpoint]
        )
        reply = await self._transport_for(upstream.provider).send(request)
        try:
            if reply.status not in GOOD_STATUSES:
                raise await read_refusal(reply)
            return await reply.body()
        finally:
            await reply.aclose()

    def _build_filter(self, job: RoutedRequest) -> StreamFilter:
        """Returns the filter of the stream's events, with the route's rules for empty
        answers and bad events.
        """
        json_name = job.route.json_name if self._names_route else None
        events = DIALECTS[job.request.endpoint].stream(job.request, json_name)
        events.silence = job.route.route.settings.on_empty_answer is _ACCEPT
        events.request_body = job.request.text
        events.skips = job.route.route.settings.on_bad_event is OnBadEvent.SKIP
        if job.probe is not None:
            events.listen(job.probe.new_signals)
        return events

    def _build_stream(
        self,
        job: RoutedRequest,
        attempt: Attempt,
        reply: UpstreamReply,
        events: StreamFilter,
        on_end: OnEnd,
        held: bytes,
    ) -> CommittedStream:
        hide = partial(
            hide_provider_secrets,
            provider=attempt.upstream.provider,
            key=attempt.key,
        )
        return CommittedStream(
            reply,
            events,
            held,
            between_s=self._between_s,
            deadline=job.deadline,
            hurried=job.hurried,
            timers=self.timers,
            on_end=on_end,
            hide=hide,
            judge_usage=partial(self._counted_usage.stream_failure, job, attempt, reply),
        )


def _limit_held_bytes(job: RoutedRequest) -> int:
    """Returns how many bytes of a stream may precede its first output."""
    # A response's metadata events repeat the whole request, so allow its length, too.
    return MAX_HELD_BYTES + 4 * len(job.request.text)


async def _read_until_commit(
    reply: UpstreamReply, events: StreamFilter, max_bytes: int
) -> bytes:
    """Reads until the first output, and returns the client's bytes up to there.

    Until then another target may still answer, so the client gets no byte. Raises
    UpstreamFailed if the stream fails or ends before, or has more than `max_bytes` bytes.
    """
    held = bytearray()

    def hold(chunk: bytes) -> bool:
        held.extend(events.feed(chunk))
        if not (events.committed or events.failure) and len(held) > max_bytes:
            raise UpstreamFailed(FailureClass.MALFORMED, "metadata without end")
        return not (events.committed or events.failure)

    if await reply.pass_on(hold):
        held += events.end()
    if not events.committed:
        failure = events.failure_class or FailureClass.MALFORMED
        raise UpstreamFailed(failure, events.failure, body=events.refusal)
    return bytes(held)


def _build_request(job: RoutedRequest, attempt: Attempt) -> UpstreamRequest:
    """Builds the upstream request. Most bodies change only in the name of the model.

    A body needs more for a target with parameters or a patch of its own. It also does if
    the target lacks a feature that the request uses, or must not get parallel tool calls.
    """
    upstream = attempt.upstream
    request = job.request
    endpoint = request.endpoint
    members = request.members
    body = None
    plain = upstream.plain_models.get(endpoint)
    if plain is not None and not (job.plan.serialize_tools or job.plan.prefill):
        if plain.may_not_suit and not plain.suits(members.found, request.text):
            body = None
        elif request.stream and endpoint is _CHAT:
            body = CHAT.plain_stream(members, plain.json_name)
        else:
            body = members.with_text("model", plain.json_name)
    return UpstreamRequest(
        upstream.provider,
        _write_body(job, upstream) if body is None else body,
        request.stream,
        attempt.number > 1,
        DIALECTS[endpoint].path,
        job.passed_up if job.span is None else (*job.passed_up, *job.span.passed_up),
        attempt.key,
        MAX_CHECK_BYTES if attempt.check else None,
        upstream.maker,
        upstream.bridged,
        upstream.can,
    )


def _check_vectors(request: ClientRequest, answer: UpstreamAnswer) -> UpstreamAnswer:
    """Checks the vectors, and writes them in the encoding that the client asked for."""
    is_base64 = EMBEDDINGS.check_vectors(request, answer.members)
    encoding = request.members.found.get("encoding_format")
    # Most servers honour the field, so most answers need no further call.
    if is_base64 == (encoding == BASE64):
        return answer
    vectors = encode_vectors(list_objects(answer.members.get("data")), encoding)
    if vectors is not None:
        members = parse_object(answer.body)
        edit = member_edit(members, "data", to_json(vectors))
        answer.body = apply_edits(members.text, [edit])
    return answer


def _write_body(job: RoutedRequest, upstream: CompiledTarget) -> bytes:
    """Writes the body for a target: its model, parameters and patch, without the features
    that it lacks.
    """
    request = job.request.with_kinds_limit(upstream.provider.kind)
    # A target that never calls tools in parallel may not know the field.
    serialize = job.plan.serialize_tools and upstream.can.parallel_tools
    dialect = DIALECTS[request.endpoint]
    body = dialect.patched(request, upstream.sent, serialize_tools=serialize)
    dropped = lost_features(request, upstream)
    if dropped:
        body = remove_fields(body, request.endpoint, dropped, upstream.sent)
    if job.plan.prefill and request.endpoint is _CHAT:
        body = mark_prefill(body, upstream.can.prefill)
    return body
