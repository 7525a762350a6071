"""Fault 4 with several keys: over real sockets, with the official client."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from harness.domain.routing.table import Snapshot
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    Upstream,
    completion,
    error,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    KEY,
    UPSTREAM_KEYS,
    World,
    provider,
    running_router,
    snapshot,
)

FIRST, SECOND, THIRD, *_ = UPSTREAM_KEYS


@dataclass
class Scene:
    """turns: what a key gets; all else is answered."""

    upstream: Upstream
    world: World
    client: openai.OpenAI
    turns: dict[str, ScriptedTurn]

    def ask(self, *, stream: bool = False) -> str:
        """The model that served."""
        raw = self.client.chat.completions.with_raw_response.create(
            model="support", messages=[{"role": "user", "content": "hi"}], stream=stream
        )
        if stream:
            assert "".join(c.choices[0].delta.content or "" for c in raw.parse() if c.choices)  # type: ignore[union-attr]  # a stream
        return raw.headers["x-swapgate-target"].partition("/")[2]

    def keys_used(self, model: str = INCUMBENT) -> list[str]:
        names = {f"Bearer {secret}": name for name, secret in UPSTREAM_KEYS.items()}
        return [
            names[request.headers["authorization"]]
            for request in self.upstream.asked_for(model)
        ]

    def breaker(self) -> float:
        metrics = self.client._client.get(
            f"{self.world.url}/metrics", headers={"authorization": f"Bearer {KEY}"}
        ).text
        series = f'swapgate_breaker_state{{target="up/{INCUMBENT}"}} '
        (line,) = (line for line in metrics.splitlines() if line.startswith(series))
        return float(line.removeprefix(series))


Stage = Callable[..., AbstractContextManager[Scene]]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    @contextmanager
    def staged(*more_keys: str) -> Iterator[Scene]:
        turns: dict[str, ScriptedTurn] = {}

        def script_turn(asked: ReceivedRequest) -> ScriptedTurn:
            secret = asked.headers["authorization"].removeprefix("Bearer ")
            for name, value in UPSTREAM_KEYS.items():
                if value == secret and name in turns:
                    return turns[name]
            return streamed("a") if asked.json.get("stream") else completion()

        with running_upstream() as upstream:
            upstream.turns = {INCUMBENT: script_turn, FALLBACK: completion()}
            with (
                running_router(keyed(upstream.url, more_keys), tmp_path) as world,
                openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
            ):
                yield Scene(upstream, world, client, turns)

    return staged


def keyed(url: str, more_keys: tuple[str, ...]) -> Snapshot:
    made = provider(url, more_api_key_envs=more_keys)
    return snapshot(url, fallback=True, providers=[made])


@pytest.mark.req("A5", "B3", "B4")
def test_only_when_no_key_is_left_the_circuit_opens_and_the_next_target_answers(
    stage: Stage,
) -> None:
    with stage(SECOND) as scene:
        scene.turns |= {FIRST: error(401), SECOND: error(403)}

        assert [scene.ask() for _ in range(3)] == [FALLBACK] * 3

        assert scene.keys_used() == [FIRST, SECOND]
        assert scene.breaker() == 2
