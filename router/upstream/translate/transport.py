"""Sends chats to providers with another protocol, through litellm's translations.

Only this module imports litellm. It uses litellm to translate JSON, without network or logs.
The import takes seconds and 190 MB, so `load_translation` runs before a client waits. This
module never passes on the text of a litellm error, because it may contain content. Requests are
screened in `request_screening` first; the wire below is `router.upstream.pool`.
"""

import asyncio
import json
import logging
import math
import os
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, Final, TypeVar

from harness.frame.errors import ConfigError
from harness.frame.failures import FailureClass
from router.frame.failure import Untranslatable, UpstreamFailed
from router.protocols.provider_refusals import GOOD_STATUSES
from router.upstream.reply_reading import WrappedReply, chunks_until_end
from router.upstream.translate.anthropic import AnthropicTranslation
from router.upstream.translate.bedrock import BedrockTranslation
from router.upstream.translate.gemini import (
    GeminiTranslation,
    VertexTranslation,
)
from router.upstream.translate.provider_errors import (
    translate_refusal,
    whole_refusal,
)
from router.upstream.translate.request_screening import Json, screen_request
from router.upstream.translate.translation import (
    ChunkTranslator,
    ErrorInStream,
    TranslatedCall,
    Translation,
    no_counterpart,
)
from router.upstream.transport import (
    Transport,
    UpstreamReply,
    UpstreamRequest,
)

_ENVIRONMENT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # without it, the import downloads the map
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",  # without it, litellm reads a .env file
}
_KINDS: Final[Mapping[str, Callable[[Any, Callable[[str], Any]], Translation]]] = {
    "anthropic": AnthropicTranslation,
    "bedrock": BedrockTranslation,
    "gemini": GeminiTranslation,
    "vertex": VertexTranslation,
}


def load_translation(kind: str) -> Translation:
    """Imports litellm on the first call. Raises ConfigError if the import fails.

    kind: of the provider. Switches off litellm's downloads, telemetry, retries and logs.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litellm's classes warn about one another
        try:
            library: Any = import_module("litellm")
        except ImportError as error:
            raise ConfigError(
                f"providers of kind {kind} need the package litellm, whose import failed "
                f"({error}); install Swapgate with all its dependencies"
            ) from error
        _silence(library)
        library.telemetry = False
        library.num_retries = 0
        library.callbacks = []
        found = _KINDS[kind](library, lambda module: import_module(f"litellm.{module}"))
        found.rehearse()
    return found


def _silence(library: Any) -> None:
    """Turns off litellm's logs whatever LITELLM_LOG is: they may contain clients' content."""
    library.suppress_debug_info = True
    library.set_verbose = False
    for name in list(logging.root.manager.loggerDict):
        if name.lower().startswith("litellm"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = False
            logger.disabled = True


Header = tuple[bytes, bytes]
T = TypeVar("T")

DONE: Final = b"data: [DONE]\n\n"
AWS_STREAM: Final = b"application/vnd.amazon.eventstream"
# The router translates a larger body in a thread, so that other requests do not wait. Bytes.
LARGE: Final = 128 * 1024
_ITS_OWN: Final = frozenset(
    {
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
    }
)


class TranslatingTransport(Transport):
    """Translates chats for one kind. wire: sends the translated request."""

    def __init__(self, kind: str, wire: Transport) -> None:
        self._kind = kind
        self._wire = wire
        self._translation: Translation | None = None

    def prepare(self) -> None:
        """Loads the translation once; takes seconds, in a thread. Raises ConfigError."""
        if self._translation is None:
            self._translation = load_translation(self._kind)

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a chat. A request without a translation gets a 422 reply, without a call."""
        if self._translation is None:
            await asyncio.to_thread(self.prepare)
        translation = self._translation
        if translation is None:
            raise UpstreamFailed(FailureClass.CONNECT, f"no translation for {self._kind}")
        asking = partial(_upstream_request, translation, self._kind, request)
        try:
            ask, sent = await _run_in_thread(len(request.body), asking)
        except Untranslatable as error:
            return whole_refusal(error)
        reply = await self._wire.send(sent)
        try:
            if reply.status not in GOOD_STATUSES:
                return await translate_refusal(reply, self._kind)
            if request.stream:
                return StreamReply(reply, translation.chunks(ask), ask.dropped)
        except BaseException:
            await reply.aclose()
            raise
        return TranslatedReply(reply, partial(translation.answer, ask), ask.dropped)


def _upstream_request(
    translation: Translation,
    kind: str,
    request: UpstreamRequest,
) -> tuple[TranslatedCall, UpstreamRequest]:
    screened_request = screen_request(json.loads(request.body), kind)
    can = request.can or request.provider.abilities(screened_request.model)
    screened_request = replace(screened_request, can=can)
    try:
        ask = translation.ask(screened_request, stream=request.stream)
    except Untranslatable:
        raise
    except Exception as error:  # noqa: BLE001 - litellm's; its text may contain content
        if _is_ours(error):
            raise _internal(error) from None
        raise no_counterpart(kind, None) from None
    headers = tuple((k.encode(), v.encode()) for k, v in ask.headers.items())
    try:
        body = json.dumps(ask.body, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError):
        raise no_counterpart(kind, None) from None
    sent = replace(
        request,
        path=ask.path,
        body=body,
        headers=(*request.headers, *headers),
    )
    return ask, sent


async def _run_in_thread(size: int, work: Callable[[], T]) -> T:
    """Runs work on many bytes in a thread. size: of its input, in bytes."""
    return await asyncio.to_thread(work) if size > LARGE else work()


def _own_headers(reply: UpstreamReply) -> Sequence[Header]:
    """Returns the reply's headers without those of its old body; streams become event
    streams.
    """
    type_ = dict(reply.headers).get(b"content-type", b"")
    kept = [header for header in reply.headers if header[0] not in _ITS_OWN]
    return [
        (
            b"content-type",
            b"text/event-stream" if type_ == AWS_STREAM else type_,
        ),
        *kept,
    ]


class TranslatedReply(WrappedReply):
    """A whole answer, translated when its body is read."""

    def __init__(
        self,
        reply: UpstreamReply,
        translate: Callable[[Json], Json],
        dropped: Sequence[str],
    ) -> None:
        super().__init__(reply)
        self.headers = _own_headers(reply)
        self.dropped = tuple(dropped)
        self._translate = translate

    async def body(self) -> bytes:
        raw = await self._reply.body()
        return await _run_in_thread(len(raw), partial(_answer, raw, self._translate))


def _answer(raw: bytes, translate: Callable[[Json], Json]) -> bytes:
    given = _json(raw)
    unended = _end_with_default(given)
    try:
        answer = translate(given)
        if unended:  # the provider sent no finish reason, so the client gets none
            answer["choices"][0]["finish_reason"] = None
        return _dump(answer)
    except UpstreamFailed:
        raise
    except Exception as error:  # noqa: BLE001 - litellm's; its text may contain content
        raise _malformed(error) from None


def _end_with_default(given: Json) -> bool:
    """Adds a good finish reason if an answer has none, for litellm; returns whether it did.

    `_answer` removes it from the translated answer again.
    """
    candidates = given.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], dict):
        name = "finishReason"
        reason = "STOP"
        where = candidates[0]
    elif isinstance(given.get("output"), dict):
        name = "stopReason"
        reason = "end_turn"
        where = given
    elif isinstance(given.get("content"), list):
        name = "stop_reason"
        reason = "end_turn"
        where = given
    else:
        return False
    if where.get(name):
        return False
    where[name] = reason
    return True


class StreamReply(WrappedReply):
    """Translates only complete events. It adds no finish reason to a stream without one."""

    def __init__(
        self,
        reply: UpstreamReply,
        chunks: ChunkTranslator,
        dropped: Sequence[str],
    ) -> None:
        super().__init__(reply)
        self.headers = _own_headers(reply)
        self.dropped = tuple(dropped)
        self._chunks = chunks

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        events = self._chunks.payloads
        translator = self._chunks
        async for piece in chunks_until_end(self._reply.chunks(), lambda: translator.ended):
            out: list[bytes] = []
            try:
                for data in events.read(piece):
                    out += [_line(event) for event in _feed(translator, data)]
            except ErrorInStream as error:
                yield b"".join([*out, _line({"error": error.error})])
                return
            if out:
                yield b"".join(out)
        last = [_line(event) for event in translator.end()]
        yield (b"".join([*last, DONE]) if translator.finished else b"".join(last))


def _feed(translator: ChunkTranslator, data: bytes) -> Sequence[Json]:
    if data == b"[DONE]":  # a gateway adds it, although the protocol has no such event
        return ()
    event = _json(data)
    try:
        return translator.feed(event)
    except (ErrorInStream, UpstreamFailed):
        raise
    except Exception as error:  # noqa: BLE001 - litellm's; its text may contain content
        raise _malformed(error) from None


def _json(raw: bytes) -> Json:
    try:
        found: Any = json.loads(raw, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UpstreamFailed(FailureClass.MALFORMED, "the answer is not a JSON object")
    return found


def _finite(text: str) -> float | None:
    """JSON has no NaN or infinities; the client gets null."""
    value = float(text)
    return value if math.isfinite(value) else None


def _is_ours(error: BaseException) -> bool:
    """Returns whether our code raised the error, or else litellm, on unreadable content."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return not any(
        frame.f_globals.get("__name__", "").startswith("litellm") for frame in frames
    )


def _internal(error: Exception) -> UpstreamFailed:
    failed = UpstreamFailed(FailureClass.INTERNAL, "the router failed")
    return failed.with_traceback(error.__traceback__)


def _malformed(error: Exception) -> UpstreamFailed:
    if _is_ours(error):
        return _internal(error)
    # Only the type, because the error's text may contain content.
    return UpstreamFailed(
        FailureClass.MALFORMED,
        f"the answer cannot be translated: {type(error).__name__}",
    )


def _dump(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _line(value: Json) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"
