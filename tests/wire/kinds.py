"""Providers of every kind in this process: below the translations, without a network.

By path each answers in its own protocol, and refuses what that protocol does not know.
"""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

from evals.sim.answers import SimulatedToolCall
from evals.sim.protocols import endpoints
from evals.sim.protocols.chat_completions import Completion
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.target import Provider
from router.frame.failure import UpstreamFailed
from router.upstream.transport import Transport, UpstreamReply, UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTransport, ScriptedTurn
from tests.wire import anthropic, bedrock, gemini, openai, vertex
from tests.wire.server import KEY, Json, Refused, Reply, Strict, WireRequest

# Those whose own protocol is played strictly; every other kind answers as OpenAI does.
STRICT: Final[Mapping[str, ModuleType]] = {
    "anthropic": anthropic,
    "bedrock": bedrock,
    "gemini": gemini,
    "vertex": vertex,
}
CALL: Final = ("weather", {"city": "Oslo"})
EVENTS: Final = {"content-type": "text/event-stream"}
HOST: Final = "http://in-process"


def model_of(kind: str) -> str:
    return str(STRICT[kind].MODEL) if kind in STRICT else openai.MODEL


def provider_of(kind: str, name: str) -> Provider:
    wire: Strict | None = STRICT[kind].strict() if kind in STRICT else None
    base = f"{HOST}{wire.api_path}" if wire else f"{HOST}/v1"
    return Provider(name, kind, base, "UP_KEY")


def says(provider: str) -> str:
    """What it answers, so that it is known whose answer a client got."""
    return f"An answer of {provider}."


class Kinds(Transport):
    """The wire below all transports. failing: names of providers that do not answer.

    asked: provider and path of each request.
    """

    def __init__(self) -> None:
        self.failing: frozenset[str] = frozenset()
        self.asked: list[tuple[str, str]] = []
        self._scripted = ScriptedTransport(self._script_turn)
        self._strict: Mapping[str, Strict] = {
            kind: wire.strict() for kind, wire in STRICT.items()
        }

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        self._scripted.seen.clear()
        return await self._scripted.send(request)

    async def aclose(self) -> None: ...

    def _script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        provider = request.provider
        self.asked.append((provider.name, request.path))
        if provider.name in self.failing:
            raise UpstreamFailed(FailureClass.TIMEOUT, "it does not answer")
        asked = _wire_request(request)
        strict = self._strict.get(provider.kind)
        return _openais(provider, asked) if strict is None else _strictly(strict, asked)


def _wire_request(request: UpstreamRequest) -> WireRequest:
    url = urlsplit(request.provider.url(request.path))
    path = f"{url.path}?{url.query}" if url.query else url.path
    headers = {k.decode(): v.decode() for k, v in request.headers}
    secret = KEY if request.key else ""
    own = {
        name.lower(): header for name, header in request.provider.key_headers(secret).items()
    }
    told = {"provider": request.provider.name}
    return WireRequest(path, {**headers, **own, **told}, json.loads(request.body))


def _strictly(strict: Strict, asked: WireRequest) -> ScriptedTurn:
    try:
        reading = strict.read(asked)
    except Refused as refused:
        return ScriptedTurn(refused.status, steps=(json.dumps(refused.body).encode(),))
    reply = Reply(says(asked.headers["provider"]))
    if reading.tools:
        reply = Reply(calls=(CALL,), stop="tools")
    if strict.streams(asked):
        head = {"content-type": strict.stream_type}
        return ScriptedTurn(headers=head, steps=tuple(strict.events(reply)))
    return ScriptedTurn(steps=(json.dumps(strict.whole(reply)).encode(),))


def _openais(provider: Provider, asked: WireRequest) -> ScriptedTurn:
    endpoint = asked.path.removeprefix(urlsplit(provider.api_base).path)
    if provider.kind in ("openai", "azure_openai"):
        _check_chat(endpoint, asked.body)
    if endpoint == "/embeddings":
        body = endpoints.embeddings_body(asked.body, model=asked.body["model"])
        return ScriptedTurn(steps=(json.dumps(body).encode(),))
    dialect = endpoints.DIALECTS[f"/v1{endpoint}"]
    request = dialect.parse(asked.body)
    answer = _completion(asked, tools=bool(request.tools))
    if not request.stream:
        return ScriptedTurn(steps=(json.dumps(dialect.body(answer)).encode(),))
    return ScriptedTurn(headers=EVENTS, steps=tuple(dialect.stream(answer, request)))


def _check_chat(endpoint: str, body: Json) -> None:
    unknown: Any = set(body) - openai.FIELDS if endpoint == "/chat/completions" else ()
    assert not unknown, f"OpenAI knows no {unknown}"


def _completion(asked: WireRequest, *, tools: bool) -> Completion:
    name, arguments = CALL
    return Completion(
        id="c1",
        created=1,
        model=asked.body["model"],
        fingerprint="f",
        text="" if tools else says(asked.headers["provider"]),
        call=SimulatedToolCall("call_1", name, json.dumps(arguments)) if tools else None,
        finish_reason="tool_calls" if tools else "stop",
        prompt_tokens=7,
        completion_tokens=5,
    )
