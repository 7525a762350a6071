"""Chooses the transport to a provider, and moves each request's conversation to its target.

`ProviderClient` sends requests of evals and probes over the same transports, so that a
candidate meets the same adaptation in evals as in traffic. Order of a request: endpoint
translation, the way of tools (`tool_ways`), move of the history, learned repairs, then the wire
or `translate`.
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
from harness.providers.models.capabilities import Endpoint, Prefill, StrictSchema
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
from router.upstream.learned_repairs import LearnedRepairs
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
THINKS: Final = b'thinking"'  # or `redacted_thinking`

ENCRYPTED: Final = b"encrypted_content"

_ASKS: Final = {MESSAGES_PATH: THINKS, RESPONSES_PATH: ENCRYPTED}

_SIGNED: Final = (
    b'"signature',
    b'"redacted_thinking"',
    b'"encrypted_content"',
    b'"thought_signature"',
)

_DATA: Final = b"data:"
TOOLS: Final = b'"tools"'

_ANSWER: Final = ANSWER.encode()

# Kinds whose chats continue a last turn of the assistant if it has `prefix`.
_PREFIXED: Final = kinds_with("prefill", Prefill.PREFIX)

# Prefix of the client's headers that only Anthropic's protocol knows.
_OWN: Final = b"anthropic-"
# Ids and times, in which two refusals with the same words may differ.
_IDS: Final = re.compile(rb"\b(?=\w*\d)[\w-]{8,}")

# Models whose gates a transport keeps.
_MOST_FITS: Final = 1_000

_BRIDGES: Final[Mapping[str, Translation]] = {
    DIALECTS[endpoint].path: translation for endpoint, translation in TRANSLATIONS.items()
}


def _marked(
    mark: Marker,
    maker: str,
    data: bytes,
) -> bytes:
    """Marks the signed pieces of a body or of one event with their maker."""
    if not any(name in data for name in _SIGNED):
        return data
    start = len(_DATA) if data.startswith(_DATA) else 0
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
        served = PROVIDER_KINDS[kind]
        # Only a provider that speaks chats itself can refuse one for Responses.
        self._tools = (
            ToolTransport(kind, repairs.ways, self.send)
            if Endpoint.CHAT in served.speaks
            else None
        )
        self._wire = wire
        self._repairs = repairs
        self._chats = chats or wire
        self._intake = INTAKES.get(kind, TAKES_ALL)
        self._fits: dict[tuple[str, bytes], ModelFit] = {}
        # Only a translated chat answer contains signatures.
        self._signs_chats = Endpoint.CHAT in served.adapted
        # Paths that the transport translates unless the request sets `bridged`.
        self._bridged = frozenset(
            DIALECTS[endpoint].path
            for endpoint in TRANSLATIONS
            if endpoint in served.adapted and Endpoint.CHAT in served.serves
        )

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request. Raises UpstreamFailed, with 422 for an untranslatable request.

        A refusal about a field or a piece of the history is repaired, and the request sent
        again, before the caller sees it. These repeats are no retries: each one sends
        another request.
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
        names = NO_NAMES
        moved = self._move(request)
        if moved is not None:
            body, dropped, names = moved
            request = replace(request, body=body)
        if self._repairs.any:
            request, changed = self._repairs.apply(request)
            dropped = (*dropped, *changed)
        way = self._chats if path == CHAT_PATH else self._wire
        reply = await way.send(request)
        if reply.status in REPAIRABLE_STATUSES:
            request, reply, dropped, refused = await self._repaired(
                way,
                request,
                reply,
                dropped,
            )
        rewrite: Rewrite | None = None
        if reply.status in GOOD_STATUSES:
            if names or request.maker:
                rewrite = self._rewrite(request, names)
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
        own = [header for header in request.headers if not header[0].startswith(_OWN)]
        asked = replace(
            request,
            body=_chat_body(chat, request),
            path=CHAT_PATH,
            headers=tuple(own),
            thinking=chat.thinking,
        )
        reply = await self.send(asked)
        if reply.status in GOOD_STATUSES:
            return BridgedReply(reply, chat, stream=request.stream)
        return reply

    def _move(self, request: UpstreamRequest) -> MovedBody | None:
        """Moves the history; returns None if the target takes the body as it is.

        Raises UpstreamFailed for a reference that no provider knows.
        """
        # Paths below an endpoint, such as the token count, have the same history.
        body = request.body
        is_message = request.path.startswith(MESSAGES_PATH)
        dropped: tuple[str, ...] = ()
        # Inlined, because every request passes here.
        model = MODEL.search(body)
        fit = self._fits.get((request.provider.name, model[1])) if model else None
        if fit is None or fit.provider is not request.provider:
            fit = self._learn_fit(request.provider, model[1] if model else b"")
        for field, form in fit.message_gates if is_message else fit.gates:
            if body.find(field) >= 0 and form.search(body):
                write = fit_message if is_message else fit_chat
                body, dropped = write(body, fit.can)
                break
        if is_message:
            moved = move_message(body, request.maker)
        elif request.path == CHAT_PATH:
            if request.provider.kind in _PREFIXED and _ANSWER in body:
                body = mark_prefill(body, fit.can.prefill)
            if body is request.body and suits_chat(body, self._intake):
                return None
            moved = move_chat(body, self._intake, request.maker)
        elif request.path.startswith(RESPONSES_PATH):
            try:
                moved = move_response(body, request.maker)
            except Untranslatable as error:
                raise refused_request(error) from None
        else:
            return None
        return moved._replace(dropped=(*dropped, *moved.dropped)) if dropped else moved

    def _learn_fit(self, provider: Provider, model: bytes) -> ModelFit:
        """Keeps what to look for in requests to a model. model: its name in a body."""
        can = provider.abilities(model.decode("utf-8", "replace"))
        fit = ModelFit(provider, can, find_gates(can), find_message_gates(can))
        if len(self._fits) >= _MOST_FITS:
            self._fits.clear()
        self._fits[provider.name, model] = fit
        return fit

    async def _repaired(
        self,
        way: Transport,
        request: UpstreamRequest,
        reply: UpstreamReply,
        dropped: tuple[str, ...],
    ) -> tuple[UpstreamRequest, UpstreamReply, tuple[str, ...], tuple[str, ...]]:
        """Repeats a refused request without the refused part, while each refusal names a new
        part. Keeps the repairs that helped: after the others, the provider repeats its words,
        which may contain a client's names of fields.
        """
        refused: list[str] = []
        said_before = b""
        learned: tuple[UpstreamRequest, RequestRepair] | None = None
        while reply.status in REPAIRABLE_STATUSES:
            body = await read_error_body(reply)
            if request.tool_way is ToolWay.AS_SENT and refuses_tools(reply.status, body):
                refusal = ToolsRefused(reply.status, reply.headers, body, source=reply)
                return request, refusal, (), ()
            less = self._repairs.learn(request, reply.status, body, refused)
            if less is None:
                reply = ReadReply(
                    reply.status,
                    reply.headers,
                    body,
                    local=reply.local,
                    unable=reply.unable,
                    source=reply,
                )
                break
            said = _IDS.sub(b"", body)
            if learned is not None and said != said_before:
                self._repairs.keep(*learned)
            learned = less.learned
            said_before = said
            await reply.aclose()
            request = less.request
            dropped = (*dropped, *less.changed)
            refused.append(less.refused)
            reply = await way.send(request)
        if learned is not None and reply.status in GOOD_STATUSES:
            self._repairs.keep(*learned)
        return request, reply, dropped, tuple(refused)

    def _rewrite(self, request: UpstreamRequest, names: Mapping[str, str]) -> Rewrite | None:
        """Returns the function that marks the answer and restores tool names; None if
        neither is needed.
        """
        asks = _ASKS.get(request.path)
        signs = asks is not None and asks in request.body
        if request.path == CHAT_PATH:
            signs = self._signs_chats
        found: list[Rewrite] = []
        if names:
            found.append(partial(with_client_names, names=names))
        if request.maker and signs:
            found.append(partial(_marked, _MARKERS[request.path], request.maker))
        return partial(_rewritten, found) if found else None


def _chat_body(chat: TranslatedRequest, message: UpstreamRequest) -> bytes:
    """Returns the body of a translated message. If the answer continues the last turn, marks
    the chat in the target's form.
    """
    return mark_prefill(chat.body, message.abilities().prefill) if chat.prefill else chat.body


def _rewritten(rewrites: Sequence[Rewrite], data: bytes) -> bytes:
    for rewrite in rewrites:
        data = rewrite(data)
    return data


TRANSLATED: Final = frozenset(
    name for name, kind in PROVIDER_KINDS.items() if Endpoint.CHAT in kind.adapted
)


class Transports:
    """One transport per kind, over one wire. monotonic: a clock in seconds.

    Calling it with a provider returns the provider's transport; raises ConfigError for a
    kind that this router does not speak.
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
        found = self._by_kind.get(provider.kind)
        if found is None:
            raise ConfigError(
                f"provider {provider.name!r} is of kind {provider.kind!r}; "
                f"this router speaks {', '.join(sorted(SERVED_KINDS))}"
            )
        return found

    def prepare(self, kinds: Iterable[str]) -> None:
        """Loads the translations of these kinds, which takes seconds. Raises ConfigError."""
        for kind in sorted(TRANSLATED & set(kinds)):
            self._translated[kind].prepare()

    async def aclose(self) -> None:
        await self._pool.aclose()


CONNECT_S: Final = 10.0

PASSING: Final = (
    FailureClass.CONNECT,
    FailureClass.TIMEOUT,
    FailureClass.OVERLOADED,
)


class ProviderClient:
    """Implements ports.ProviderCalls. Raises ConfigError if it cannot load a translation.

    connections: at most this many to an origin. timeout_s: for one whole call. allowed:
    exceptions to the addresses that the router does not call.
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
                return await self._posted(request)
        except TimeoutError:
            raise NoAnswer("the provider did not answer in time") from None
        except UpstreamFailed as failed:
            why = f"the call failed: {failed.detail}".encode("utf-8", "surrogatepass")
            safe = hide_provider_secrets(why, self._provider, self._key)
            again = failed.failure in PASSING
            raise NoAnswer(safe.decode("utf-8", "replace"), again=again) from None

    async def close(self) -> None:
        await self._transports.aclose()

    async def _posted(self, request: UpstreamRequest) -> Posted:
        reply = await self._transport.send(request)
        try:
            raw = await reply.body()
        finally:
            await reply.aclose()
        headers = {
            name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
            for name, value in reply.headers
        }
        good = reply.status in GOOD_STATUSES
        failure = None if good else classify_status(reply.status, raw)
        return Posted(reply.status, headers, raw, failure)
