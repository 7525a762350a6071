"""Providers of every kind in this process: below the translations, without a network.

By path each answers in its own protocol, and refuses what that protocol does not know.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Final
from urllib.parse import urlsplit

from evals.sim import simulator
from harness.frame.failures import FailureClass
from harness.providers.target import Provider
from router.frame.failure import UpstreamFailed
from router.upstream.transport import (
    Transport,
    UpstreamReply,
    UpstreamRequest,
)
from tests.support.providers.scripted_transport import (
    ScriptedTransport,
    ScriptedTurn,
)
from tests.wire import (
    anthropic,
    bedrock,
    chats,
    gemini,
    openai,
    responses,
    vertex,
)
from tests.wire.server import (
    KEY,
    Json,
    Reading,
    Reply,
    Strict,
    WireRequest,
    play,
    whole_turn,
)

# Those with a protocol of their own; every other kind answers as OpenAI does.
STRICT: Final[Mapping[str, ModuleType]] = {
    "anthropic": anthropic,
    "bedrock": bedrock,
    "gemini": gemini,
    "vertex": vertex,
}
HOST: Final = "http://in-process"


def model_of(kind: str) -> str:
    return str(STRICT[kind].MODEL) if kind in STRICT else openai.MODEL


def provider_of(kind: str, name: str) -> Provider:
    path: str = STRICT[kind].strict().api_path if kind in STRICT else "/v1"
    return Provider(name, kind, f"{HOST}{path}", "UP_KEY")


class StrictWire(Transport, ABC):
    """failing: providers that do not answer. asked: provider and path. refused: words."""

    def __init__(self) -> None:
        self.failing: frozenset[str] = frozenset()
        self.asked: list[tuple[str, str]] = []
        self.refused: list[str] = []
        self._scripted = ScriptedTransport(self._script_turn)

    @abstractmethod
    def reply(self, reading: Reading, provider: Provider) -> Reply: ...

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        self._scripted.seen.clear()
        return await self._scripted.send(request)

    async def aclose(self) -> None: ...

    def _script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        provider = request.provider
        path = request.path
        self.asked.append((provider.name, path))
        if provider.name in self.failing:
            raise UpstreamFailed(FailureClass.TIMEOUT, "it does not answer")
        body: Json = json.loads(request.body)
        if path == "/embeddings":
            return whole_turn(simulator.embeddings_body(body, model=body["model"]))
        return play(
            strict_of(provider, path, body),
            _wire_request(request, body),
            lambda reading: self.reply(reading, provider),
            self.refused,
        )


def strict_of(
    provider: Provider,
    path: str,
    body: Json,
) -> Strict:
    name = provider.name
    kind = provider.kind
    if kind == "anthropic":
        return anthropic.strict(f"sig{name}")
    if kind in STRICT:
        found: Strict = STRICT[kind].strict()
        return found
    if path == "/messages":  # a simulator's
        offered = tuple(tool["name"] for tool in body.get("tools", ()))
        return replace(anthropic.strict(), read=lambda _: Reading("", (), offered))
    if path == "/responses":
        return replace(
            openai.strict(),
            read=lambda _: responses.read(body, name),
            whole=lambda reply: responses.whole(reply, body, name),
            events=lambda reply: responses.events(responses.whole(reply, body, name)),
        )
    if kind in ("openai", "azure_openai"):
        chat = WireRequest("/v1/chat/completions", {"authorization": f"Bearer {KEY}"}, body)
        return replace(openai.strict(), read=lambda _: openai.read(chat))
    return chats.strict(kind)


def _wire_request(request: UpstreamRequest, body: Json) -> WireRequest:
    url = urlsplit(request.provider.url(request.path))
    path = f"{url.path}?{url.query}" if url.query else url.path
    headers = {k.decode(): v.decode() for k, v in request.headers}
    secret = KEY if request.key else ""
    own = {k.lower(): v for k, v in request.provider.key_headers(secret).items()}
    return WireRequest(path, {**headers, **own}, body)
