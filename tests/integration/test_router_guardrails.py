import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from harness.domain.canary.guardrails import FailureTally, Guardrail, Guardrails, UnitRule
from harness.domain.canary.observation import ObservationBlock
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
)

REQUESTS = 40
GOOD, BROKEN = '{"city": "Bern"}', '{"city": "Be'
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {"properties": {"city": {"type": "string"}}, "additionalProperties": False},
    },
}
RULE = UnitRule(block_size=REQUESTS, guardrails=Guardrails().tolerated())


@pytest.fixture
def world(upstream: Upstream, tmp_path: Path) -> Iterator[World]:
    """Half of the callers are in the canary arm."""
    with running_router(snapshot(upstream.url, weight_bps=5000, rule=RULE), tmp_path) as world:
        yield world


def ended(turn: ScriptedTurn, reason: str, *, after_s: float) -> ScriptedTurn:
    (body,) = turn.steps
    assert isinstance(body, bytes)
    return replace(turn, steps=(after_s, body.replace(b'"stop"', f'"{reason}"'.encode())))


def stream_pieces(*pieces: str, finish: str, pause_s: float) -> ScriptedTurn:
    deltas = [step for piece in pieces for step in (pause_s, event({"content": piece}))]
    return ScriptedTurn(headers=EVENTS, steps=(ROLE, *deltas, event(finish=finish), DONE))


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
    return FailureTally(block.units, block.canary_units, block.canary_units, block.canary_units)


@pytest.mark.req("F3")
@pytest.mark.parametrize("stream", [False, True])
def test_a_candidate_that_breaks_its_json_cuts_its_answers_and_is_slow_is_seen(
    world: World, upstream: Upstream, *, stream: bool
) -> None:
    if stream:
        upstream.turns = {
            INCUMBENT: stream_pieces('{"city"', ': "Bern"}', finish="stop", pause_s=0.0),
            CANDIDATE: stream_pieces('{"city"', ': "Be', finish="length", pause_s=0.25),
        }
    else:
        upstream.turns = {
            INCUMBENT: completion(GOOD),
            CANDIDATE: ended(completion(BROKEN), "length", after_s=0.5),
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
        slow += [Guardrail.TIME_TO_FIRST_TOKEN, Guardrail.INTER_TOKEN_LATENCY]
    for guardrail in slow:
        assert block.ranks[guardrail]
        assert min(block.ranks[guardrail]) > 0.5
        assert block.levels[guardrail].canary > block.levels[guardrail].control
    assert (Guardrail.TIME_TO_FIRST_TOKEN in block.ranks) is stream
    # The candidate has no price: what a success costs cannot be compared.
    assert Guardrail.COST_PER_SUCCESS not in block.ranks
