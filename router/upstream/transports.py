"""Chooses the transport to a provider, and moves each request's conversation to its target.

`ProviderClient` sends requests of evals and probes over the same transports, so that a
candidate's requests are adapted in evals as in traffic. Order of a request: endpoint
translation, the endpoint for tools (`tool_ways`), move of the history, learned repairs, then
the pool or `translate`.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from harness.frame.errors import ConfigError, NoAnswer
from harness.frame.failures import FailureClass
from harness.providers.credential import ProviderKey, hide_provider_secrets
from harness.providers.kinds import PROVIDER_KINDS, SERVED_KINDS
from harness.providers.models.abilities import kinds_with
from harness.providers.models.capabilities import Capabilities, Endpoint, Prefill, StrictSchema
from harness.providers.ports import Posted
from harness.providers.target import Provider
from harness.routing.reliability.request_repair import RequestRepair
from harness.routing.settings import RouterSettings
from router.conversation.chat_fields import (
    MODEL,
    ModelFit,
    find_gates,
    find_message_gates,
    fit_chat,
)
from router.conversation.chat_history import (
    TOOL_FIELDS,
    mark_chat,
    move_chat,
    suits_chat,
    with_client_names,
)
from router.conversation.field_forms import fit_message
from router.conversation.intake import INTAKES, TAKES_ALL, MovedBody
from router.conversation.native_histories import (
    mark_message,
    mark_response,
    move_message,
    move_response,
)
from router.conversation.prefill_forms import ANSWER, mark_prefill
from router.frame.body import (
    CHAT_PATH,
    MESSAGES_PATH,
    NO_NAMES,
    RESPONSES_PATH,
    to_json,
)
from router.frame.failure import (
    Untranslatable,
    UpstreamFailed,
    refused_request,
)
from router.protocols.endpoints import DIALECTS
from router.protocols.provider_failures import classify_status
from router.protocols.provider_refusals import GOOD_STATUSES, REPAIRABLE_STATUSES
from router.upstream.endpoint_translation import (
    TRANSLATIONS,
    TranslatedRequest,
    Translation,
)
from router.upstream.learned_repairs import BETA_HEADER, Headers, LearnedRepairs
from router.upstream.pool import UpstreamPool
from router.upstream.reply_reading import (
    BridgedReply,
    MovedReply,
    ReadReply,
    Rewrite,
    read_error_body,
)
from router.upstream.tool_ways import (
    ToolsRefused,
    ToolTransport,
    refuses_tools,
)
from router.upstream.translate.transport import TranslatingTransport
from router.upstream.transport import (
    ToolWay,
    Transport,
    UpstreamReply,
    UpstreamRequest,
)

Marker = Callable[[dict[str, Any], str], bool]

_MARKERS: Final[Mapping[str, Marker]] = {
    CHAT_PATH: mark_chat,
    MESSAGES_PATH: mark_message,
    RESPONSES_PATH: mark_response,
}

# If a request contains this text, its answer may contain thinking that the router must mark.
THINKING_SUFFIX: Final = b'thinking"'  # or `redacted_thinking`

ENCRYPTED: Final = b"encrypted_content"

_THINKING_MARKS: Final = {MESSAGES_PATH: THINKING_SUFFIX, RESPONSES_PATH: ENCRYPTED}

_SIGNATURE_FIELDS: Final = (
    b'"signature',
    b'"redacted_thinking"',
    b'"encrypted_content"',
    b'"thought_signature"',
)

_DATA_PREFIX: Final = b"data:"
TOOLS: Final = b'"tools"'

_ANSWER_ROLE: Final = ANSWER.encode()

# Kinds that continue a chat's last turn of the assistant if it has `prefix`.
_PREFIX_KINDS: Final = kinds_with("prefill", Prefill.PREFIX)

# Prefix of the client's headers that only Anthropic's protocol knows.
_ANTHROPIC_PREFIX: Final = b"anthropic-"
# Ids and times, in which two refusals with the same words may differ.
_CHANGING_WORDS: Final = re.compile(rb"\b(?=\w*\d)[\w-]{8,}")

# The most models with gates in a transport's memory.
_MOST_FITS: Final = 1_000

_BRIDGES: Final[Mapping[str, Translation]] = {
    DIALECTS[endpoint].path: translation for endpoint, translation in TRANSLATIONS.items()
}


def _find_abilities(can: Capabilities, headers: Headers) -> Capabilities:
    """Returns a model's abilities for a request. A beta header such as `output-128k-2025-02-19`
    raises the model's largest output, so the published limit says nothing about it.
    """
    raises_limit = any(name == BETA_HEADER and b"output-" in value for name, value in headers)
    return replace(can, max_output_tokens=None) if raises_limit else can


def _mark_signatures(
    mark: Marker,
    maker: str,
    data: bytes,
) -> bytes:
    """Marks the signed pieces of a body or of one event with their maker."""
    if not any(name in data for name in _SIGNATURE_FIELDS):
        return data
    start = len(_DATA_PREFIX) if data.startswith(_DATA_PREFIX) else 0
    try:
        answer = json.loads(data[start:])
    except (ValueError, RecursionError):
        return data  # the endpoint's reader reports the fault
    if not isinstance(answer, dict) or not mark(answer, maker):
        return data
    return data[:start] + (b" " if start else b"") + to_json(answer).encode()


class ConversationTransport(Transport):
    """Adapts conversations to one kind of provider.

    wire: sends the requests. chats: sends the chats; None for `wire`.
    repairs: shared by all kinds of a worker.
    """

    def __init__(
        self,
        kind: str,
        wire: Transport,
        repairs: LearnedRepairs,
        chats: Transport | None = None,
    ) -> None:
        kind_row = PROVIDER_KINDS[kind]
        # Only a provider that speaks chats itself can refuse one for Responses.
        self._tools = (
            ToolTransport(kind, repairs.ways, self.send)
            if Endpoint.CHAT in kind_row.speaks
            else None
        )
        self._wire = wire
        self._repairs = repairs
        self._chats = chats or wire
        self._intake = INTAKES.get(kind, TAKES_ALL)
        self._fits: dict[tuple[str, bytes], ModelFit] = {}
        # Only a translated chat answer contains signatures.
        self._marks_chats = Endpoint.CHAT in kind_row.adapted
        # Paths that the transport translates unless the request sets `bridged`.
        self._bridged = frozenset(
            DIALECTS[endpoint].path
            for endpoint in TRANSLATIONS
            if endpoint in kind_row.adapted and Endpoint.CHAT in kind_row.serves
        )

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request. Raises UpstreamFailed, with 422 for an untranslatable request.

        After a refusal of a field or of a piece of the history, the transport repairs the
        request and sends it again. These repeats are not retries, because they send another
        request.
        """
        path = request.path
        if path in (self._bridged if request.bridged is None else request.bridged):
            return await self._bridge(request)
        tools = self._tools if path == CHAT_PATH and request.tool_way is None else None
        # `find` costs less than `in`, see `suits_chat`.
        if tools is not None and request.body.find(TOOL_FIELDS) >= 0 and TOOLS in request.body:
            return await tools.send(request)
        dropped: tuple[str, ...] = ()
        refused: tuple[str, ...] = ()
        tool_names = NO_NAMES
        moved_body = self._move(request)
        if moved_body is not None:
            body, dropped, tool_names = moved_body
            request = replace(request, body=body)
        if self._repairs.any:
            request, changed_parts = self._repairs.apply(request)
            dropped = (*dropped, *changed_parts)
        transport = self._chats if path == CHAT_PATH else self._wire
        reply = await transport.send(request)
        if reply.status in REPAIRABLE_STATUSES:
            request, reply, dropped, refused = await self._repair_and_repeat(
                transport,
                request,
                reply,
                dropped,
            )
        rewrite: Rewrite | None = None
        if reply.status in GOOD_STATUSES:
            if tool_names or request.maker:
                rewrite = self._rewrite(request, tool_names)
            if self._repairs.any:
                self._repairs.note_answer(request)
        if rewrite is not None or dropped or refused:
            reply = MovedReply(
                reply,
                tuple(dict.fromkeys(dropped)),
                sorted({*refused}),
                rewrite,
            )
        return reply  # the caller reads errors of every protocol

    async def _bridge(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request as a chat. Raises UpstreamFailed."""
        strict = request.can.strict_schema if request.can else StrictSchema.UNKNOWN
        kind = request.provider.kind
        try:
            chat = _BRIDGES[request.path](request.body, kind, request.maker, strict)
        except Untranslatable as error:
            raise refused_request(error) from None
        forwarded = [
            header for header in request.headers if not header[0].startswith(_ANTHROPIC_PREFIX)
        ]
        chat_request = replace(
            request,
            body=_chat_body(chat, request),
            path=CHAT_PATH,
            headers=tuple(forwarded),
            thinking=chat.thinking,
        )
        reply = await self.send(chat_request)
        if reply.status in GOOD_STATUSES:
            return BridgedReply(reply, chat, stream=request.stream)
        return reply

    def _move(self, request: UpstreamRequest) -> MovedBody | None:
        """Moves the history. Returns None if the target accepts the body unchanged.

        Raises UpstreamFailed for a reference that no provider knows.
        """
        # Paths below an endpoint, such as the token count, have the same history.
        body = request.body
        is_message = request.path.startswith(MESSAGES_PATH)
        dropped: tuple[str, ...] = ()
        # Inlined, because every request passes here.
        model = MODEL.search(body)
        model_fit = self._fits.get((request.provider.name, model[1])) if model else None
        if model_fit is None or model_fit.provider is not request.provider:
            model_fit = self._learn_fit(request.provider, model[1] if model else b"")
        for field, pattern in model_fit.message_gates if is_message else model_fit.gates:
            if body.find(field) >= 0 and pattern.search(body):
                fit_body = fit_message if is_message else fit_chat
                body, dropped = fit_body(body, _find_abilities(model_fit.can, request.headers))
                break
        if is_message:
            moved_body = move_message(body, request.maker)
        elif request.path == CHAT_PATH:
            if request.provider.kind in _PREFIX_KINDS and _ANSWER_ROLE in body:
                body = mark_prefill(body, model_fit.can.prefill)
            if body is request.body and suits_chat(body, self._intake):
                return None
            moved_body = move_chat(body, self._intake, request.maker)
        elif request.path.startswith(RESPONSES_PATH):
            try:
                moved_body = move_response(body, request.maker)
            except Untranslatable as error:
                raise refused_request(error) from None
        else:
            return None
        return (
            moved_body._replace(dropped=(*dropped, *moved_body.dropped))
            if dropped
            else moved_body
        )

    def _learn_fit(self, provider: Provider, model: bytes) -> ModelFit:
        """Keeps the gates for requests to a model.

        Args:
            model: its name in a body.
        """
        can = provider.abilities(model.decode("utf-8", "replace"))
        fit = ModelFit(provider, can, find_gates(can), find_message_gates(can))
        if len(self._fits) >= _MOST_FITS:
            self._fits.clear()
        self._fits[provider.name, model] = fit
        return fit

    async def _repair_and_repeat(
        self,
        transport: Transport,
        request: UpstreamRequest,
        reply: UpstreamReply,
        dropped: tuple[str, ...],
    ) -> tuple[UpstreamRequest, UpstreamReply, tuple[str, ...], tuple[str, ...]]:
        """Repeats a refused request without the refused part, while a refusal names a new part.

        Keeps only the repairs that helped. After a useless repair, the provider repeats its
        message, which may contain a client's names of fields.
        """
        refused: list[str] = []
        earlier_refusal_text = b""
        unproven_repair: tuple[UpstreamRequest, RequestRepair] | None = None
        while reply.status in REPAIRABLE_STATUSES:
            body = await read_error_body(reply)
            if request.tool_way is ToolWay.AS_SENT and refuses_tools(reply.status, body):
                refusal = ToolsRefused(reply.status, reply.headers, body, source=reply)
                return request, refusal, (), ()
            repaired = self._repairs.learn(request, reply.status, body, refused)
            if repaired is None:
                reply = ReadReply(
                    reply.status,
                    reply.headers,
                    body,
                    local=reply.local,
                    unable=reply.unable,
                    source=reply,
                )
                break
            refusal_text = _CHANGING_WORDS.sub(b"", body)
            if unproven_repair is not None and refusal_text != earlier_refusal_text:
                self._repairs.keep(*unproven_repair)
            unproven_repair = repaired.learned
            earlier_refusal_text = refusal_text
            await reply.aclose()
            request = repaired.request
            dropped = (*dropped, *repaired.changed)
            refused.append(repaired.refused)
            reply = await transport.send(request)
        if unproven_repair is not None and reply.status in GOOD_STATUSES:
            self._repairs.keep(*unproven_repair)
        return request, reply, dropped, tuple(refused)

    def _rewrite(self, request: UpstreamRequest, names: Mapping[str, str]) -> Rewrite | None:
        """Returns the function that marks the answer and restores tool names.

        Returns None if the answer needs neither.
        """
        thinking_mark = _THINKING_MARKS.get(request.path)
        has_signatures = thinking_mark is not None and thinking_mark in request.body
        if request.path == CHAT_PATH:
            has_signatures = self._marks_chats
        rewrites: list[Rewrite] = []
        if names:
            rewrites.append(partial(with_client_names, names=names))
        if request.maker and has_signatures:
            rewrites.append(partial(_mark_signatures, _MARKERS[request.path], request.maker))
        return partial(_apply_rewrites, rewrites) if rewrites else None


def _chat_body(chat: TranslatedRequest, message: UpstreamRequest) -> bytes:
    """Returns the body of a translated message.

    If the answer continues the last turn, the chat gets the target's mark.
    """
    return mark_prefill(chat.body, message.abilities().prefill) if chat.prefill else chat.body


def _apply_rewrites(rewrites: Sequence[Rewrite], data: bytes) -> bytes:
    for rewrite in rewrites:
        data = rewrite(data)
    return data


TRANSLATED: Final = frozenset(
    name for name, kind in PROVIDER_KINDS.items() if Endpoint.CHAT in kind.adapted
)


class Transports:
    """One transport per kind, over one wire. monotonic: a clock in seconds.

    A call with a provider returns the provider's transport. It raises ConfigError for a kind
    that this router does not speak.
    """

    def __init__(
        self,
        settings: RouterSettings,
        wire: Transport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = wire or UpstreamPool(settings)
        self.repairs = LearnedRepairs(monotonic)
        self._translated = {kind: TranslatingTransport(kind, self._pool) for kind in TRANSLATED}
        self._by_kind: Final[Mapping[str, Transport]] = {
            name: ConversationTransport(
                name, self._pool, self.repairs, self._translated.get(name)
            )
            for name in PROVIDER_KINDS
            if name in SERVED_KINDS
        }

    def __call__(self, provider: Provider) -> Transport:
        transport = self._by_kind.get(provider.kind)
        if transport is None:
            raise ConfigError(
                f"provider {provider.name!r} is of kind {provider.kind!r}; "
                f"this router speaks {', '.join(sorted(SERVED_KINDS))}"
            )
        return transport

    def prepare(self, kinds: Iterable[str]) -> None:
        """Loads the translations of these kinds, which takes seconds. Raises ConfigError."""
        for kind in sorted(TRANSLATED & set(kinds)):
            self._translated[kind].prepare()

    async def aclose(self) -> None:
        await self._pool.aclose()


CONNECT_S: Final = 10.0

TEMPORARY_FAILURES: Final = (
    FailureClass.CONNECT,
    FailureClass.TIMEOUT,
    FailureClass.OVERLOADED,
)


class ProviderClient:
    """Implements ports.ProviderCalls. Raises ConfigError if it cannot load a translation.

    connections: the limit of connections to an origin. timeout_s: the limit of one whole call.
    allowed: exceptions to the addresses that the router does not call.
    """

    def __init__(
        self,
        provider: Provider,
        api_key: str | None,
        *,
        connections: int,
        timeout_s: float,
        allowed: Collection[str] = (),
    ) -> None:
        self._provider = provider
        self._key = ProviderKey("", api_key) if api_key else None
        self._timeout_s = timeout_s
        settings = replace(
            RouterSettings(),
            upstream_connections=connections,
            connect_timeout_s=CONNECT_S,
            allow_addresses=tuple(allowed),
        )
        self._transports = Transports(settings)
        self._transport = self._transports(provider)
        self._transports.prepare([provider.kind])

    async def post(self, path: str, body: bytes) -> Posted:
        """Posts a body to the provider and waits for the whole answer. Raises NoAnswer."""
        request = UpstreamRequest(
            self._provider,
            body,
            stream=False,
            path=path,
            key=self._key,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(request)
        except TimeoutError:
            raise NoAnswer("the provider did not answer in time") from None
        except UpstreamFailed as failed:
            detail = f"the call failed: {failed.detail}".encode("utf-8", "surrogatepass")
            safe_detail = hide_provider_secrets(detail, self._provider, self._key)
            may_repeat = failed.failure in TEMPORARY_FAILURES
            text = safe_detail.decode("utf-8", "replace")
            raise NoAnswer(text, again=may_repeat) from None

    async def close(self) -> None:
        await self._transports.aclose()

    async def _post(self, request: UpstreamRequest) -> Posted:
        reply = await self._transport.send(request)
        try:
            raw = await reply.body()
        finally:
            await reply.aclose()
        headers = {
            name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
            for name, value in reply.headers
        }
        is_good = reply.status in GOOD_STATUSES
        failure = None if is_good else classify_status(reply.status, raw)
        return Posted(reply.status, headers, raw, failure)
