"""Faults 1 to 11 of a provider, over real sockets: each fault, endpoint and form of an answer.

Retries, pauses and circuits are tested by the clock in `unit/test_router_breakers.py`.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import openai
import pytest

from evals.sim.simulator import Simulator
from harness.gate.online.guardrails import (
    ExposureRule,
    FailureTally,
    Guardrail,
    Guardrails,
)
from harness.gate.online.observation import ObservationBlock
from harness.routing.route_settings import StreamCommit
from router.protocols.event_stream import SsePayloads
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    EVENTS,
    ROLE,
    Upstream,
    completion,
    event,
)
from tests.support.router.live_router import (
    CANDIDATE,
    INCUMBENT,
    KEY,
    World,
    running_router,
    snapshot,
    wait_until,
)
from tests.support.router.simulated_router import (
    HELLO,
    HURRIED,
    OWN,
    SPARE,
    SimScene,
    served,
    snapshot_of,
)
from tests.support.sampling import one_in

Json = dict[str, Any]
# For targets that say nothing: the next one may take all the time that is left.
SILENT: Final = replace(
    HURRIED,
    first_token_timeout_s=0.3,
    between_chunks_timeout_s=1.0,
    total_timeout_s=5.0,
)
SILENCES: Final = ("hang", "stall")
SAID: Final = [{"role": "user", "content": HELLO}]


class Protocol(NamedTuple):
    """How an endpoint is asked, what its answers say, and how a whole stream ends."""

    path: str
    fields: Json
    text: Callable[[Json], str]
    piece: Callable[[Json], str]
    end: str


def chat_piece(event: Json) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))


def response_piece(event: Json) -> str:
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


CHAT: Final = Protocol(
    "/v1/chat/completions",
    {"messages": SAID},
    lambda body: str(body["choices"][0]["message"]["content"]),
    chat_piece,
    "[DONE]",
)
MESSAGES: Final = Protocol(
    "/v1/messages",
    {"messages": SAID, "max_tokens": 100},
    lambda body: str(body["content"][0]["text"]),
    lambda event: str(event.get("delta", {}).get("text") or ""),
    '"message_stop"',
)
RESPONSES: Final = Protocol(
    "/v1/responses",
    {"input": HELLO},
    lambda body: str(body["output"][0]["content"][0]["text"]),
    response_piece,
    '"response.completed"',
)
PROTOCOLS: Final = {
    "chat": CHAT,
    "messages": MESSAGES,
    "responses": RESPONSES,
}


@dataclass
class Scene(SimScene):
    http: httpx.Client

    def ask(self, protocol: Protocol = CHAT, *, stream: bool = False) -> str:
        answer = self._answer(protocol, stream=stream)
        assert answer.status_code == 200, answer.text
        if stream:
            events = payloads(answer)
            assert protocol.end in answer.text
            assert not [event for event in events if event.get("error")]
            text = "".join(map(protocol.piece, events))
        else:
            text = protocol.text(answer.json())
        assert len(text.split()) == 12
        return served(answer.headers)

    def _answer(self, protocol: Protocol, *, stream: bool) -> httpx.Response:
        body = {
            "model": "support",
            "stream": stream,
            **protocol.fields,
        }
        return self.http.post(f"{self.world.url}{protocol.path}", json=body)

    def count_charged(self, requests: int = 1) -> int:
        return sum(row.charged for row in self.world.wait_for_traffic(requests))


def payloads(answer: httpx.Response) -> list[Json]:
    data = SsePayloads().read(answer.content)
    return [json.loads(event) for event in data if event != b"[DONE]"]


Stage = Callable[..., Any]


@pytest.fixture
def stage(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> Stage:
    sim.faults.clear()
    sim.stats.clear()

    @contextmanager
    def staged(
        *,
        own_url: str = "",
        canary: bool = False,
        commit: StreamCommit = StreamCommit.FIRST_TOKEN,
        fault: str = "",
    ) -> Iterator[Scene]:
        settings = SILENT if fault in SILENCES else HURRIED
        first = snapshot_of(sim_url, canary=canary)
        route = first.table.routes["support"]
        route = replace(route, settings=replace(route.settings, commit=commit))
        up = replace(
            first.providers["up"],
            api_base=own_url or first.providers["up"].api_base,
        )
        first = replace(
            first,
            table=replace(first.table, routes={**first.table.routes, "support": route}),
            providers={**first.providers, "up": up},
        )
        bearer = {"authorization": f"Bearer {KEY}"}
        with (
            running_router(first, tmp_path, settings) as world,
            httpx.Client(headers=bearer, timeout=60) as http,
        ):
            yield Scene(sim, world, http)

    return staged


# Before the first words. Each with how often the target is asked that fails so.
FAULTS: Final[dict[str, tuple[Json, int]]] = {
    "500": ({"kind": "status", "status": 500}, 2),
    "503": ({"kind": "status", "status": 503}, 2),
    "529": ({"kind": "status", "status": 529}, 2),
    "401": ({"kind": "status", "status": 401}, 1),
    "quota": (
        {
            "kind": "status",
            "status": 429,
            "code": "insufficient_quota",
        },
        1,
    ),
    "limit": (
        {
            "kind": "status",
            "status": 429,
            "headers": {"retry-after": "600"},
        },
        1,
    ),
    "credit": (
        {
            "kind": "status",
            "status": 400,
            "message": "credit balance is too low",
        },
        1,
    ),
    "withdrawn": ({"kind": "not_found"}, 1),
    "reset": ({"kind": "reset"}, 2),
    "close": ({"kind": "close"}, 2),
    "hang": ({"kind": "hang"}, 1),
    "text": ({"kind": "garbage", "variant": "text"}, 1),
    "nan": ({"kind": "garbage", "variant": "nan"}, 1),
    "nested": ({"kind": "garbage", "variant": "nested"}, 1),
    "no choices": ({"kind": "garbage", "variant": "no_choices"}, 1),
    "html": ({"kind": "html"}, 1),
    "content type": ({"kind": "wrong_content_type"}, 1),
}
# Anthropic's errors name the account in words; those of the other endpoints have a code.
NOT_EVERYWHERE: Final = {
    "credit": ("messages",),
    "quota": ("chat", "responses"),
}
# A plain answer, a stream, and a stream that is held back until it is whole.
FORMS: Final = {
    "plain": (False, StreamCommit.FIRST_TOKEN),
    "stream": (True, StreamCommit.FIRST_TOKEN),
    "held back": (True, StreamCommit.WHOLE),
}
CELLS: Final = [
    (fault, protocol, form)
    for fault in FAULTS
    for protocol in NOT_EVERYWHERE.get(fault, PROTOCOLS)
    for form in FORMS
    if form != "held back" or (protocol == "chat" and fault in ("hang", "nan", "html"))
]


@pytest.mark.req("A5", "B3", "B8")
@pytest.mark.parametrize(("fault", "protocol", "form"), one_in(5, CELLS))
def test_before_the_first_words_the_next_target_answers(
    stage: Stage,
    fault: str,
    protocol: str,
    form: str,
) -> None:
    given, tries = FAULTS[fault]
    stream, commit = FORMS[form]
    with stage(commit=commit, fault=fault) as scene:
        scene.fault(**given)

        assert scene.ask(PROTOCOLS[protocol], stream=stream) == SPARE

        # A provider that is slow reads a request after the router has given it up.
        wait_until(lambda: scene.requests_to(OWN) >= tries)
        assert (scene.requests_to(OWN), scene.requests_to(SPARE)) == (
            tries,
            1,
        )
        assert scene.count_charged() == 1


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    "own_url",
    [
        "http://127.0.0.1:1/v1",
        "http://no-such-host.invalid/v1",
        "https://{sim}/v1",
    ],
    ids=["refused", "no such name", "no TLS there"],
)
def test_a_provider_that_cannot_be_reached_is_passed_over(
    stage: Stage,
    sim_url: str,
    own_url: str,
) -> None:
    with stage(own_url=own_url.format(sim=sim_url.removeprefix("http://"))) as scene:
        assert scene.ask() == SPARE
        assert scene.ask(stream=True) == SPARE
        assert scene.count_charged(2) == 2


REQUESTS = 40
GOOD = '{"city": "Bern"}'
BROKEN = '{"city": "Be'
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {
            "properties": {"city": {"type": "string"}},
            "additionalProperties": False,
        },
    },
}
RULE = ExposureRule(block_size=REQUESTS, guardrails=Guardrails().tolerated())


@pytest.fixture
def world(upstream: Upstream, tmp_path: Path) -> Iterator[World]:
    """Half of the callers are in the canary arm."""
    with running_router(snapshot(upstream.url, weight_bps=5000, rule=RULE), tmp_path) as world:
        yield world


def ended(
    turn: ScriptedTurn,
    reason: str,
    *,
    after_s: float,
) -> ScriptedTurn:
    (body,) = turn.steps
    assert isinstance(body, bytes)
    return replace(
        turn,
        steps=(after_s, body.replace(b'"stop"', f'"{reason}"'.encode())),
    )


def stream_pieces(
    *pieces: str,
    finish: str,
    pause_s: float,
) -> ScriptedTurn:
    deltas = [event({"content": piece}) for piece in pieces]
    steps: tuple[bytes | float, ...] = (
        ROLE,
        pause_s,
        *deltas,
        event(finish=finish),
        DONE,
    )
    return ScriptedTurn(headers=EVENTS, steps=steps)


def ask_all(world: World, *, stream: bool) -> None:
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:

        def ask(number: int) -> None:
            answer = client.chat.completions.create(
                model="support",
                messages=[{"role": "user", "content": "Where?"}],
                user=f"user-{number}",
                stream=stream,
                extra_body={"response_format": SCHEMA},
            )
            if isinstance(answer, openai.Stream):
                assert list(answer)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(REQUESTS)))


def only_block(world: World) -> ObservationBlock:
    pause = threading.Event()
    for _ in range(400):
        if world.store.blocks:
            break
        pause.wait(0.05)
    (block,) = world.store.blocks.values()
    return block


def everybody_of_the_canary(block: ObservationBlock) -> FailureTally:
    return FailureTally(
        block.units,
        block.canary_units,
        block.canary_units,
        block.canary_units,
    )


@pytest.mark.req("F3")
@pytest.mark.parametrize("stream", [False, True])
def test_a_candidate_that_breaks_its_json_cuts_its_answers_and_is_slow_is_seen(
    world: World,
    upstream: Upstream,
    *,
    stream: bool,
) -> None:
    if stream:
        upstream.turns = {
            INCUMBENT: stream_pieces(
                '{"city"',
                ': "Bern"}',
                finish="stop",
                pause_s=0.0,
            ),
            CANDIDATE: stream_pieces(
                '{"city"',
                ': "Be',
                finish="length",
                pause_s=1.0,
            ),
        }
    else:
        upstream.turns = {
            INCUMBENT: completion(GOOD),
            CANDIDATE: ended(completion(BROKEN), "length", after_s=1.0),
        }

    ask_all(world, stream=stream)
    block = only_block(world)

    assert block.failures == 0
    assert 0 < block.canary_units < REQUESTS
    assert block.counts[Guardrail.JSON_VALIDITY] == everybody_of_the_canary(block)
    assert block.counts[Guardrail.TRUNCATION] == everybody_of_the_canary(block)
    assert block.counts[Guardrail.REFUSALS].failures == 0
    slow = [Guardrail.LATENCY]
    if stream:
        slow.append(Guardrail.TIME_TO_FIRST_TOKEN)
        # This provider counts no tokens, so the time between them is unknown.
        assert Guardrail.INTER_TOKEN_LATENCY not in block.ranks
    for guardrail in slow:
        assert block.ranks[guardrail]
        assert min(block.ranks[guardrail]) > 0.5
        assert block.levels[guardrail].canary > block.levels[guardrail].control
    assert (Guardrail.TIME_TO_FIRST_TOKEN in block.ranks) is stream
    # The candidate has no price: what a success costs cannot be compared.
    assert Guardrail.COST_PER_SUCCESS not in block.ranks
