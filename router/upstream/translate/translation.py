"""The interface of a translation (JSON in, JSON out), and fields mapped by litellm."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from router.frame.failure import Untranslatable
from router.upstream.translate.request_screening import Json, ScreenedRequest
from router.upstream.translate.thinking import NEAREST, is_effort_set


class ErrorInStream(Exception):
    """Signals an error in the provider's stream. error: as an OpenAI event would have it."""

    def __init__(self, error: Json) -> None:
        super().__init__(str(error.get("type")))
        self.error = error


@dataclass(frozen=True, slots=True)
class TranslatedCall:
    """A request as its provider has it."""

    path: str
    body: Json
    headers: Mapping[str, str]
    dropped: tuple[str, ...]  # fields that stay behind
    notes: Mapping[str, Any]  # what the translation needs to know again when the answer comes


class PayloadSource(Protocol):
    def read(self, data: bytes) -> Iterator[bytes]:
        """The JSON of each event that is whole. Raises UpstreamFailed (malformed)."""
        ...


class ChunkTranslator(Protocol):
    """Makes OpenAI's chunks of a provider's stream."""

    finished: bool  # the stream came to its end
    # Cuts it into its events. ended: it said why it ends, and its last event may be missing.
    payloads: PayloadSource

    @property
    def ended(self) -> bool: ...

    def feed(self, event: Json) -> Sequence[Json]:
        """Translates an event into OpenAI's chunks. Raises ErrorInStream."""
        ...

    def end(self) -> Sequence[Json]:
        """The upstream's stream is over: the last chunks, none where it broke off."""
        ...


class Translation(Protocol):
    """Pure, but for the tables that it looks models up in."""

    def ask(self, request: ScreenedRequest, *, stream: bool) -> TranslatedCall:
        """Translates a chat into the provider's request. Raises Untranslatable."""
        ...

    def answer(self, ask: TranslatedCall, answer: Json) -> Json:
        """Translates the provider's answer into a chat's; may raise any error."""
        ...

    def chunks(self, ask: TranslatedCall) -> ChunkTranslator: ...

    def rehearse(self) -> None:
        """Translate once each way: the library builds its classes when they are first used."""
        ...


REHEARSAL: Final[Json] = {
    "model": "-",
    "messages": [{"role": "user", "content": "-"}],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ],
}


def mapped(config: Any, request: ScreenedRequest, kind: str) -> Json:
    """The nearest effort is among `dropped`. Raises Untranslatable."""
    given = {name: value for name, value in request.params.items() if name != "top_k"}
    effort = given.get("reasoning_effort")
    found = None
    try:
        found = _as_mapped(config, given, request, kind)
    except Untranslatable:
        if effort not in NEAREST:
            raise
    if effort and (found is None or not is_effort_set(effort, found, kind)):
        request.dropped["reasoning_effort"] = None
        if effort in NEAREST:
            given["reasoning_effort"] = NEAREST[effort]
            found = _as_mapped(config, given, request, kind)
    found = found or {}
    if request.params.get("top_k") is not None:
        found["top_k"] = request.params["top_k"]
    return found


def _as_mapped(config: Any, given: Json, request: ScreenedRequest, kind: str) -> Json:
    found = _try_mapped(config, given, request.model)
    if found is not None:
        return found
    # Its text may hold what the client said, and is about itself: the field says more.
    tools = {name: given[name] for name in ("tools",) if name in given}
    for name, value in given.items():
        if _try_mapped(config, {**tools, name: value}, request.model) is None:
            raise no_counterpart(kind, name)
    raise no_counterpart(kind, None)


def _try_mapped(config: Any, given: Json, model: str) -> Json | None:
    try:
        # It may change what it is given.
        return dict(config.map_openai_params(copy.deepcopy(given), {}, model, drop_params=True))
    except Exception:  # noqa: BLE001 - it has no error of its own for this
        return None


def no_counterpart(kind: str, param: str | None) -> Untranslatable:
    """Builds the error without the library's message, which may hold content."""
    what = f"`{param}`" if param else "the request"
    return Untranslatable(f"{what} cannot be said in the protocol of {kind}", param)
