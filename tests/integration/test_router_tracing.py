import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from evals.sim import server
from harness.app import router_process
from harness.frame.errors import ConfigError
from harness.frame.people.access import OptOut
from harness.routing.settings import TracingSettings
from router.observers.tracing import OpenTelemetry, read_finish_reasons
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_transport import ScriptedEvent
from tests.support.providers.scripted_upstream import (
    ROLE,
    Upstream,
    broken_stream,
    completion,
    error,
    event,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    KEY,
    running_router,
    snapshot,
)
from tests.support.router.router_process import ROUTE, ask, routed
from tests.support.site.trace_collector import (
    CollectedSpan,
    Collector,
    collecting,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SERVER = 2
CLIENT = 3
QUESTION = "what nobody else may read"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream() as made:
        yield made


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@contextmanager
def traced(
    upstream: Upstream,
    collector: Collector,
    folder: Path,
    *,
    content: bool = False,
    opt_outs: frozenset[OptOut] = frozenset(),
) -> Iterator[openai.OpenAI]:
    tracing = OpenTelemetry(TracingSettings(collector.url, content))
    first = snapshot(upstream.url, fallback=True)
    first = replace(
        first,
        keys=tuple(replace(key, opt_outs=opt_outs) for key in first.keys),
    )
    with (
        running_router(first, folder, tracing=tracing) as world,
        openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        yield client


def chat(
    client: openai.OpenAI,
    *,
    stream: bool = False,
    **headers: str,
) -> None:
    done = client.chat.completions.create(
        model="support",
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0.5,
        max_tokens=64,
        stream=stream,
        extra_headers=headers,
    )
    if stream:
        for _ in done:
            pass


def request_and_attempts(collector: Collector) -> tuple[CollectedSpan, list[CollectedSpan]]:
    (whole,) = [span for span in collector.spans if span.kind == SERVER]
    return whole, [span for span in collector.spans if span.kind == CLIENT]


@pytest.mark.req("B5", "B9")
def test_a_request_is_a_span_and_each_attempt_one_below_it(
    upstream: Upstream,
    collector: Collector,
    tmp_path: Path,
) -> None:
    upstream.turns = {INCUMBENT: error(401), FALLBACK: completion("hello")}
    with traced(upstream, collector, tmp_path) as client:
        chat(
            client,
            traceparent=f"00-{TRACE}-{PARENT}-01",
            tracestate="vendor=1",
        )

    whole, (first, second) = request_and_attempts(collector)
    assert (whole.name, whole.trace, whole.parent) == (
        "chat support",
        TRACE,
        PARENT,
    )
    assert not whole.failed
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "up",
        "gen_ai.request.model": "support",
        "gen_ai.response.model": FALLBACK,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ["stop"],
        "swapproof.route": "support",
        "swapproof.arm": "incumbent",
        "swapproof.revision": 3,
        "swapproof.target": f"up/{FALLBACK}",
        "swapproof.attempts": 2,
        "swapproof.outcome": "ok",
    }
    assert {name: whole.attributes.get(name) for name in expected} == expected
    assert (first.name, first.parent, first.failed) == (
        f"chat {INCUMBENT}",
        whole.span,
        True,
    )
    assert first.attributes["error.type"] == "our_key"
    assert (second.parent, second.failed) == (whole.span, False)
    assert second.attributes["gen_ai.request.model"] == FALLBACK
    assert collector.service == "swapproof-router"
    passed = [request.headers["traceparent"] for request in upstream.asked]
    assert passed == [f"00-{TRACE}-{span.span}-01" for span in (first, second)]
    assert {request.headers["tracestate"] for request in upstream.asked} == {"vendor=1"}
    assert not [body for body in collector.raw if QUESTION.encode() in body]


@pytest.mark.req("B5")
def test_a_stream_ends_its_spans_when_it_ends(
    upstream: Upstream,
    collector: Collector,
    tmp_path: Path,
) -> None:
    upstream.turns = {INCUMBENT: streamed("one", "two")}
    with traced(upstream, collector, tmp_path) as client:
        chat(client, stream=True)

    whole, (attempt,) = request_and_attempts(collector)
    assert whole.parent == ""
    assert (whole.trace, attempt.parent) == (attempt.trace, whole.span)
    assert whole.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert whole.attributes["gen_ai.request.stream"] is True
    assert whole.attributes["gen_ai.response.time_to_first_chunk"] >= 0


@pytest.mark.req("B8")
def test_a_broken_stream_says_so_in_both_spans(
    upstream: Upstream,
    collector: Collector,
    tmp_path: Path,
) -> None:
    half = event({"content": "half"})
    upstream.turns = {INCUMBENT: broken_stream(ROLE, half, ScriptedEvent.RESET)}
    with (
        traced(upstream, collector, tmp_path) as client,
        pytest.raises(openai.APIError),
    ):
        chat(client, stream=True)

    whole, (attempt,) = request_and_attempts(collector)
    assert whole.failed
    assert attempt.failed
    assert whole.attributes["error.type"] == attempt.attributes["error.type"] == "connect"
    assert whole.attributes["swapproof.outcome"] == "failed"


@pytest.mark.req("B5", "G4")
def test_content_is_recorded_where_it_is_asked_for(
    upstream: Upstream,
    collector: Collector,
    tmp_path: Path,
) -> None:
    upstream.turns = {INCUMBENT: completion("the answer")}
    with traced(upstream, collector, tmp_path, content=True) as client:
        chat(client)

    whole, _ = request_and_attempts(collector)
    asked = json.loads(whole.attributes["gen_ai.input.messages"])
    assert asked == [{"role": "user", "content": QUESTION}]
    assert "the answer" in whole.attributes["gen_ai.output.messages"]


@pytest.mark.spine
@pytest.mark.req("G3", "G4")
@pytest.mark.parametrize("by", ["key", "header"])
def test_no_content_is_recorded_of_who_lets_nobody_keep_a_copy(
    upstream: Upstream,
    collector: Collector,
    tmp_path: Path,
    by: str,
) -> None:
    upstream.turns = {INCUMBENT: completion("the answer")}
    opt_outs = frozenset({OptOut.CAPTURE} if by == "key" else ())
    with traced(
        upstream,
        collector,
        tmp_path,
        content=True,
        opt_outs=opt_outs,
    ) as client:
        headers = {"x-swapproof-capture": "off"} if by == "header" else {}
        chat(client, stream=False, **headers)

    whole, _ = request_and_attempts(collector)
    assert whole.attributes["swapproof.outcome"] == "ok"
    assert not [b for b in collector.raw if QUESTION.encode() in b or b"the answer" in b]


@pytest.mark.req("B5")
def test_a_collector_that_is_away_costs_no_request_and_no_exit(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.turns = {INCUMBENT: completion("hello")}
    with traced(upstream, Collector("http://127.0.0.1:9"), tmp_path) as client:
        for _ in range(5):
            chat(client)


@pytest.mark.slow
@pytest.mark.req("B9")
def test_the_standard_variable_turns_tracing_on_in_a_router_process(
    collector: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-router")
    simulator = server.simulator(time_scale=0.0)
    with (
        simulator_thread.serve_in_thread(simulator) as provider,
        routed(tmp_path, provider) as world,
    ):
        world.start()
        with world.client() as client:
            assert ask(client)
        assert world.place.terminate("router") == 0

    whole, (attempt,) = request_and_attempts(collector)
    assert whole.name == f"chat {ROUTE}"
    assert attempt.attributes["gen_ai.provider.name"] == "sim"
    assert collector.service == "our-router"


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, OpenTelemetry.__module__)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ConfigError, match=r"swapproof\[otel\]"):
        router_process._build_tracing(TracingSettings("http://127.0.0.1:9"))


def test_tracing_is_off_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert router_process._build_tracing(TracingSettings()) is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert router_process._build_tracing(TracingSettings("http://127.0.0.1:9")) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"choices": [{"finish_reason": "stop"}, {"finish_reason": "x"}]},
            ["stop", "x"],
        ),
        ({"stop_reason": "end_turn"}, ["end_turn"]),
        ({"status": "completed"}, ["completed"]),
        ({"data": []}, []),
        ({"choices": [None, {"finish_reason": None}]}, []),
    ],
)
def test_finish_reasons_are_found_in_every_protocol(
    answer: dict[str, object], expected: list[str]
) -> None:
    assert read_finish_reasons(answer) == expected
