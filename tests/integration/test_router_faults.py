"""Faults 1 to 11 and 15 over real sockets: the simulator's switches, the official client."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import openai
import pytest

from evals.sim import faults, server
from evals.sim.simulator import Simulator
from harness.domain.canary.guardrails import UnitRule
from harness.domain.operations.access import key_hash
from harness.domain.reliability.breaker import BreakerPolicy, WhenAllOpen
from harness.domain.routing.table import (
    Canary,
    KeyGrant,
    Route,
    RouteSettings,
    RoutingTable,
    Snapshot,
    StreamCommit,
)
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import RouterSettings
from tests.support.providers import simulator_thread
from tests.support.router.live_router import KEY, SECRET, World, running_router
from tests.support.router.simulated_router import HURRIED

OWN, SPARE, CANDIDATE = "sim-base", "sim-better", "sim-worse"
# A plain answer, a stream, and a stream that is held back until it is whole.
WAYS = pytest.mark.parametrize(
    ("scene", "stream"),
    [
        (StreamCommit.FIRST_TOKEN, False),
        (StreamCommit.FIRST_TOKEN, True),
        (StreamCommit.WHOLE, True),
    ],
    indirect=["scene"],
    ids=["plain", "stream", "held back"],
)
STREAMS = pytest.mark.parametrize("scene", StreamCommit, indirect=True)
HELD_BACK = pytest.mark.parametrize("scene", [StreamCommit.WHOLE], indirect=True)
FAIL_FAST = replace(HURRIED, breaker=BreakerPolicy(when_all_open=WhenAllOpen.FAIL_FAST))


@pytest.fixture(scope="module")
def module_sim() -> Simulator:
    return server.simulator(time_scale=0)


@pytest.fixture(scope="module")
def sim_url(module_sim: Simulator) -> Iterator[str]:
    with simulator_thread.serve_in_thread(module_sim) as url:
        yield url


@dataclass
class Scene:
    """A route with a spare before the simulator, or with a canary that takes everybody."""

    sim: Simulator
    world: World
    client: openai.OpenAI

    def fault(self, kind: str, model: str = OWN, **fields: Any) -> None:
        self.sim.faults.set(model, faults.parse_fault({"kind": kind, **fields}))

    def requests_to(self, model: str) -> int:
        stats = self.sim.stats.get(model)
        return stats.requests if stats else 0

    def ask(self) -> str:
        """The model that served."""
        raw = self.client.chat.completions.with_raw_response.create(
            model="support", messages=[{"role": "user", "content": "Say 12 words please."}]
        )
        assert raw.parse().choices[0].message.content
        return model_of(raw.headers)

    def stream(self) -> tuple[str, str]:
        """The raw body and the model that served; reading it to its end never raises."""
        with self.client.chat.completions.with_streaming_response.create(
            model="support",
            messages=[{"role": "user", "content": "Say 12 words please."}],
            stream=True,
        ) as raw:
            return raw.read().decode(), model_of(raw.headers)

    def ask_as(self, *, stream: bool) -> str:
        if not stream:
            return self.ask()
        text, target = self.stream()
        assert text.endswith("data: [DONE]\n\n")
        return target

    def breaker(self, model: str = OWN) -> int:
        metrics = self.client._client.get(
            f"{self.world.url}/metrics", headers={"authorization": f"Bearer {KEY}"}
        ).text
        series = f'swapgate_breaker_state{{target="up/{model}"}} '
        (line,) = (line for line in metrics.splitlines() if line.startswith(series))
        return int(float(line.removeprefix(series)))

    def count_charged(self, requests: int = 1) -> int:
        return sum(row.charged for row in self.world.wait_for_traffic(requests))


def model_of(headers: Mapping[str, str]) -> str:
    return headers["x-swapgate-target"].partition("/")[2]


def first(
    url: str, *, own_url: str | None, canary: bool, spare: bool, commit: StreamCommit
) -> Snapshot:
    own, other = Target("up", OWN), Target("other", SPARE)
    candidate = Target("up", CANDIDATE)
    route = Route(
        "support",
        1,
        own.id,
        Canary(candidate.id, 10_000, "salt", "r-1", UnitRule()) if canary else None,
        (other.id,) if spare else (),
        RouteSettings(commit=commit),
    )
    providers = (
        Provider("up", "sim", own_url or f"{url}/v1"),
        Provider("other", "sim", f"{url}/v1"),
    )
    return Snapshot(
        RoutingTable(1, {"support": route}, {t.id: t for t in (own, other, candidate)}),
        {provider.name: provider for provider in providers},
        (KeyGrant("k", key_hash(KEY, SECRET)),),
        "1",
    )


@pytest.fixture
def stage(module_sim: Simulator, sim_url: str, tmp_path: Path) -> Any:
    module_sim.faults.clear()
    module_sim.stats.clear()

    @contextmanager
    def staged(
        settings: RouterSettings = HURRIED,
        *,
        own_url: str | None = None,
        canary: bool = False,
        spare: bool = True,
        commit: StreamCommit = StreamCommit.FIRST_TOKEN,
    ) -> Iterator[Scene]:
        snapshot = first(sim_url, own_url=own_url, canary=canary, spare=spare, commit=commit)
        with (
            running_router(snapshot, tmp_path, settings) as world,
            openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
        ):
            yield Scene(module_sim, world, client)

    return staged


@pytest.fixture
def scene(stage: Any, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with stage(commit=getattr(request, "param", StreamCommit.FIRST_TOKEN)) as scene:
        yield scene


def http_date(seconds: int) -> str:
    soon = datetime.now(UTC) + timedelta(seconds=seconds)  # noqa: TID251 - providers' clock
    return format_datetime(soon, usegmt=True)


# Fault 1


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Retry-After", "0"),
        ("Retry-After", "0.05"),
        ("Retry-After", "date"),
        ("retry-after-ms", "50"),
        ("x-ms-retry-after-ms", "50"),
    ],
)
def test_a_429_is_waited_for_when_that_fits(scene: Scene, name: str, value: str) -> None:
    value = http_date(0) if value == "date" else value
    scene.fault("status", status=429, headers={name: value}, until_count=1)

    assert scene.ask() == OWN

    assert (scene.requests_to(OWN), scene.requests_to(SPARE)) == (2, 0)
    assert scene.breaker() == 0
    assert scene.count_charged() == 0


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Retry-After", "600"),
        ("Retry-After", "date"),
        ("retry-after-ms", "600000"),
        ("x-ms-retry-after-ms", "600000"),
    ],
)
def test_a_429_that_asks_for_too_long_is_answered_by_the_next_target(
    scene: Scene, name: str, value: str
) -> None:
    value = http_date(600) if value == "date" else value
    scene.fault("status", status=429, headers={name: value})

    assert [scene.ask(), scene.ask()] == [SPARE, SPARE]

    assert scene.requests_to(OWN) == 1  # and left alone for the time it asked for
    assert scene.breaker() == 0
    assert scene.count_charged(2) == 2


# Fault 2


@pytest.mark.req("A5", "B3", "B4")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_a_server_error_is_tried_once_more_then_the_next_target_answers(
    scene: Scene, status: int, *, stream: bool
) -> None:
    scene.fault("status", status=status)

    assert scene.ask_as(stream=stream) == SPARE
    assert scene.requests_to(OWN) == 2

    for _ in range(3):
        assert scene.ask_as(stream=stream) == SPARE
    assert scene.requests_to(OWN) == 5
    assert scene.breaker() == 2
    assert scene.count_charged(4) == 4


# Fault 3


@pytest.mark.req("A5")
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_is_told_at_once_with_the_providers_words(
    scene: Scene, status: int
) -> None:
    scene.fault("status", status=status, code="odd")

    with pytest.raises(openai.APIStatusError) as told:
        scene.ask()

    assert (told.value.status_code, told.value.code) == (status, "odd")
    assert (scene.requests_to(OWN), scene.requests_to(SPARE)) == (1, 0)
    assert scene.breaker() == 0
    assert scene.count_charged() == 0


@pytest.mark.req("A5", "F4")
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_only_the_canary_rejects_costs_one_more_call(
    stage: Any, status: int
) -> None:
    with stage(canary=True) as scene:
        scene.fault("status", CANDIDATE, status=status)

        assert scene.ask() == OWN

        assert (scene.requests_to(CANDIDATE), scene.requests_to(OWN)) == (1, 1)
        assert scene.breaker(CANDIDATE) == 0
        assert scene.count_charged() == 1


# Fault 4


@pytest.mark.req("A5", "B3", "B4")
@pytest.mark.parametrize(
    ("status", "code"), [(401, None), (402, None), (403, None), (429, "insufficient_quota")]
)
def test_when_our_account_is_refused_the_next_target_answers_and_nobody_asks_again(
    scene: Scene, status: int, code: str | None
) -> None:
    scene.fault("status", status=status, code=code)

    assert [scene.ask() for _ in range(3)] == [SPARE] * 3

    assert scene.requests_to(OWN) == 1
    assert scene.breaker() == 2
    assert scene.count_charged(3) == 3


@pytest.mark.req("A5")
def test_a_model_that_was_withdrawn_is_our_mistake_and_not_the_clients(scene: Scene) -> None:
    scene.fault("not_found")

    assert [scene.ask(), scene.ask()] == [SPARE, SPARE]

    assert scene.requests_to(OWN) == 1
    assert scene.breaker() == 2


# Fault 5


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize(
    "own_url",
    ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1", "https://{sim}/v1"],
    ids=["refused", "no such name", "no TLS there"],
)
def test_a_provider_that_cannot_be_reached_is_passed_over(
    stage: Any, sim_url: str, own_url: str
) -> None:
    url = own_url.format(sim=sim_url.removeprefix("http://"))
    with stage(own_url=url) as scene:
        assert scene.ask() == SPARE
        assert scene.ask_as(stream=True) == SPARE
        assert scene.count_charged(2) == 2


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["reset", "close"])
def test_a_connection_that_ends_before_the_first_byte_is_tried_anew_then_passed_over(
    scene: Scene, kind: str, *, stream: bool
) -> None:
    scene.fault(kind)

    assert scene.ask_as(stream=stream) == SPARE
    assert scene.requests_to(OWN) == 2

    scene.fault(kind, until_count=1)
    assert scene.ask_as(stream=stream) == OWN
    assert scene.count_charged(2) == 1


# Fault 6


@pytest.mark.req("A5", "B3", "B8")
@WAYS
def test_a_provider_that_says_nothing_is_given_up(scene: Scene, *, stream: bool) -> None:
    scene.fault("hang")

    assert scene.ask_as(stream=stream) == SPARE

    assert scene.requests_to(OWN) == 1
    assert scene.count_charged() == 1


# Faults 7 and 8


@pytest.mark.req("B8")
@pytest.mark.parametrize("kind", ["stall", "reset", "close", "truncate", "error_in_stream"])
def test_a_stream_that_breaks_in_its_middle_ends_in_an_error_and_is_never_spliced(
    scene: Scene, kind: str
) -> None:
    scene.fault(kind, after_chunks=3)

    text, target = scene.stream()

    assert target == OWN
    assert "[DONE]" not in text
    last = json.loads(text.rstrip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["type"] == "upstream_error"
    assert scene.requests_to(SPARE) == 0
    assert scene.count_charged() == 1


@pytest.mark.req("B8")
@HELD_BACK
@pytest.mark.parametrize("kind", ["stall", "reset", "close", "truncate", "error_in_stream"])
def test_a_stream_that_is_held_back_and_breaks_in_its_middle_is_answered_by_the_next_target(
    scene: Scene, kind: str
) -> None:
    scene.fault(kind, after_chunks=3)

    assert scene.ask_as(stream=True) == SPARE
    assert scene.count_charged() == 1


# Faults 9 and 10


@pytest.mark.req("B3", "B8")
@STREAMS
@pytest.mark.parametrize("role_first", [False, True])
@pytest.mark.parametrize("kind", ["error_in_stream", "reset", "close", "stall", "truncate"])
def test_a_stream_that_breaks_before_its_first_words_is_answered_by_the_next_target(
    scene: Scene, kind: str, *, role_first: bool
) -> None:
    scene.fault(kind, after_chunks=0, role_first=role_first)

    assert scene.ask_as(stream=True) == SPARE
    assert scene.count_charged() == 1


# Fault 11


@pytest.mark.req("A5", "B3")
@WAYS
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "garbage", "variant": "text"},
        {"kind": "garbage", "variant": "nan"},
        {"kind": "garbage", "variant": "nested"},
        {"kind": "garbage", "variant": "no_choices"},
        {"kind": "html"},
        {"kind": "wrong_content_type"},
    ],
    ids=lambda fault: fault.get("variant", fault["kind"]),
)
def test_an_answer_that_is_none_is_passed_over(
    scene: Scene, fault: dict[str, str], *, stream: bool
) -> None:
    scene.fault(**fault)

    assert scene.ask_as(stream=stream) == SPARE

    assert scene.requests_to(OWN) == 1
    assert scene.count_charged() == 1


# Fault 15


@pytest.mark.req("B4")
def test_when_every_circuit_is_open_the_client_is_told_when_to_come_back(stage: Any) -> None:
    with stage(FAIL_FAST) as scene:
        scene.fault("status", "*", status=401)
        with pytest.raises(openai.InternalServerError) as tried:
            scene.ask()
        with pytest.raises(openai.InternalServerError) as told:
            scene.ask()

        for gateway in (tried, told):
            assert gateway.value.status_code == 503
            assert gateway.value.code == "all_circuits_open"
            assert 0 < int(gateway.value.response.headers["retry-after"]) <= 10
        assert (scene.requests_to(OWN), scene.requests_to(SPARE)) == (1, 1)


@pytest.mark.req("B4")
def test_when_every_circuit_is_open_one_target_is_tried_unless_it_is_forbidden(
    scene: Scene,
) -> None:
    scene.fault("status", "*", status=401)
    with pytest.raises(openai.InternalServerError):
        scene.ask()
    scene.sim.faults.clear()

    assert scene.ask() == OWN


@pytest.mark.req("A5", "B4")
def test_the_clients_own_retries_do_not_multiply_an_outage(scene: Scene) -> None:
    scene.fault("status", "*", status=503)
    stubborn = scene.client.with_options(max_retries=5)
    for _ in range(20):
        with pytest.raises(openai.InternalServerError):
            stubborn.chat.completions.create(
                model="support", messages=[{"role": "user", "content": "hi"}]
            )

    # Until the breakers open two tries of each target, then one call for each request.
    assert scene.requests_to(OWN) + scene.requests_to(SPARE) <= 20 * 1.2 + 8
