"""Sends chats to providers with another protocol, through litellm's translations.

Only this module imports litellm. It uses litellm to translate JSON, without network or logs.
The import takes seconds and 190 MB, so `load_translation` runs before a client waits. This
module never passes on the text of a litellm error, because it may contain content.
`request_screening` screens the requests first; `router.upstream.pool` sends them.
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
    untranslatable_reply,
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

    Args:
        kind: the provider's kind.

    Switches off litellm's downloads, telemetry, retries and logs.
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
                f"({error}); install Swapproof with all its dependencies"
            ) from error
        _silence_logs(library)
        library.telemetry = False
        library.num_retries = 0
        library.callbacks = []
        translation = _KINDS[kind](library, lambda module: import_module(f"litellm.{module}"))
        translation.rehearse()
    return translation


def _silence_logs(library: Any) -> None:
    """Turns off litellm's logs for every LITELLM_LOG: they may contain clients' content."""
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
# The router translates a larger body in a thread, so that other requests do not wait.
LARGE_BYTES: Final = 128 * 1024
_BODY_HEADERS: Final = frozenset(
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
        """Loads the translation once, which needs seconds. Raises ConfigError."""
        if self._translation is None:
            self._translation = load_translation(self._kind)

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a chat. A request without a translation gets a 422 reply, without a call."""
        if self._translation is None:
            await asyncio.to_thread(self.prepare)
        translation = self._translation
        if translation is None:
            raise UpstreamFailed(FailureClass.CONNECT, f"no translation for {self._kind}")
        translate = partial(_translate_request, translation, self._kind, request)
        try:
            ask, provider_request = await _run_in_thread(len(request.body), translate)
        except Untranslatable as error:
            return untranslatable_reply(error)
        reply = await self._wire.send(provider_request)
        try:
            if reply.status not in GOOD_STATUSES:
                return await translate_refusal(reply, self._kind)
            if request.stream:
                return StreamReply(reply, translation.chunks(ask), ask.dropped)
        except BaseException:
            await reply.aclose()
            raise
        return TranslatedReply(reply, partial(translation.answer, ask), ask.dropped)


def _translate_request(
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
        if _is_router_error(error):
            raise _internal_failure(error) from None
        raise no_counterpart(kind, None) from None
    headers = tuple((name.encode(), value.encode()) for name, value in ask.headers.items())
    try:
        body = json.dumps(ask.body, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError):
        raise no_counterpart(kind, None) from None
    provider_request = replace(
        request,
        path=ask.path,
        body=body,
        headers=(*request.headers, *headers),
    )
    return ask, provider_request


async def _run_in_thread(size: int, work: Callable[[], T]) -> T:
    """Runs `work`, in a thread if its input is large.

    Args:
        size: the input's bytes.
    """
    return await asyncio.to_thread(work) if size > LARGE_BYTES else work()


def _translated_headers(reply: UpstreamReply) -> Sequence[Header]:
    """Returns the reply's headers without the headers of its old body.

    The type of AWS's stream becomes that of an event stream.
    """
    content_type = dict(reply.headers).get(b"content-type", b"")
    other_headers = [header for header in reply.headers if header[0] not in _BODY_HEADERS]
    return [
        (
            b"content-type",
            b"text/event-stream" if content_type == AWS_STREAM else content_type,
        ),
        *other_headers,
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
        self.headers = _translated_headers(reply)
        self.dropped = tuple(dropped)
        self._translate = translate

    async def body(self) -> bytes:
        raw = await self._reply.body()
        return await _run_in_thread(len(raw), partial(_translate_answer, raw, self._translate))


def _translate_answer(raw: bytes, translate: Callable[[Json], Json]) -> bytes:
    provider_answer = _parse_json(raw)
    lacks_reason = _add_default_reason(provider_answer)
    try:
        answer = translate(provider_answer)
        if lacks_reason:  # the provider sent no finish reason, so the client gets none
            answer["choices"][0]["finish_reason"] = None
        return _write_json(answer)
    except UpstreamFailed:
        raise
    except Exception as error:  # noqa: BLE001 - litellm's; its text may contain content
        raise _malformed_failure(error) from None


def _add_default_reason(answer: Json) -> bool:
    """Adds a good finish reason, for litellm, if an answer has none.

    Returns whether it added the reason. `_translate_answer` removes it after the translation.
    """
    candidates = answer.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], dict):
        name = "finishReason"
        reason = "STOP"
        holder = candidates[0]
    elif isinstance(answer.get("output"), dict):
        name = "stopReason"
        reason = "end_turn"
        holder = answer
    elif isinstance(answer.get("content"), list):
        name = "stop_reason"
        reason = "end_turn"
        holder = answer
    else:
        return False
    if holder.get(name):
        return False
    holder[name] = reason
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
        self.headers = _translated_headers(reply)
        self.dropped = tuple(dropped)
        self._chunks = chunks

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        events = self._chunks.payloads
        translator = self._chunks
        async for piece in chunks_until_end(self._reply.chunks(), lambda: translator.ended):
            lines: list[bytes] = []
            try:
                for data in events.read(piece):
                    lines += [_write_line(event) for event in _feed_event(translator, data)]
            except ErrorInStream as error:
                yield b"".join([*lines, _write_line({"error": error.error})])
                return
            if lines:
                yield b"".join(lines)
        last = [_write_line(event) for event in translator.end()]
        yield (b"".join([*last, DONE]) if translator.finished else b"".join(last))


def _feed_event(translator: ChunkTranslator, data: bytes) -> Sequence[Json]:
    if data == b"[DONE]":  # a gateway adds it, although the protocol has no such event
        return ()
    event = _parse_json(data)
    try:
        return translator.feed(event)
    except (ErrorInStream, UpstreamFailed):
        raise
    except Exception as error:  # noqa: BLE001 - litellm's; its text may contain content
        raise _malformed_failure(error) from None


def _parse_json(raw: bytes) -> Json:
    try:
        parsed: Any = json.loads(raw, parse_constant=lambda _: None, parse_float=_parse_finite)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise UpstreamFailed(FailureClass.MALFORMED, "the answer is not a JSON object")
    return parsed


def _parse_finite(text: str) -> float | None:
    """Returns None for NaN and infinities, because JSON has no such numbers."""
    value = float(text)
    return value if math.isfinite(value) else None


def _is_router_error(error: BaseException) -> bool:
    """Returns whether the router's code raised the error, and not litellm."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return not any(
        frame.f_globals.get("__name__", "").startswith("litellm") for frame in frames
    )


def _internal_failure(error: Exception) -> UpstreamFailed:
    failed = UpstreamFailed(FailureClass.INTERNAL, "the router failed")
    return failed.with_traceback(error.__traceback__)


def _malformed_failure(error: Exception) -> UpstreamFailed:
    if _is_router_error(error):
        return _internal_failure(error)
    # Only the type, because the error's text may contain content.
    return UpstreamFailed(
        FailureClass.MALFORMED,
        f"the answer cannot be translated: {type(error).__name__}",
    )


def _write_json(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _write_line(value: Json) -> bytes:
    return b"data: " + _write_json(value) + b"\n\n"
