"""`swapproof attach` on LiteLLM's admin API, and on spans that it receives."""

import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from click.testing import CliRunner
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from harness.app.attach import otlp_receiver, source_reading
from harness.app.attach.attach import AttachRequest, attach
from harness.app.attach.attach_blocks import write_json
from harness.app.attach.attach_report import AttachReport
from harness.app.attach.otlp_receiver import OtlpReceiver, parse_address
from harness.app.attach.source_reading import add_records, check_url
from harness.app.attach.traffic_survey import TrafficSurvey
from harness.frame.errors import InputError, UpstreamError
from harness.interfaces.cli.program import program
from harness.providers.models.catalogue import Catalogue
from tests.support.control.manual_clock import ManualClock
from tests.support.site.http_thread import Exchange
from tests.support.site.http_thread import serving as serving_http

pytestmark = pytest.mark.req("D8")

NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
KEY = "sk-read-only-1234567890"


class SpendLogs(Exchange):
    """LiteLLM's list of spend logs, two rows a page."""

    asked: ClassVar[list[tuple[str, str]]] = []
    rows: ClassVar[int] = 5

    def exchange(self) -> None:
        self.asked.append((self.path, self.received_headers()["authorization"]))
        page = int(parse_qs(urlsplit(self.path).query)["page"][0])
        numbers = range(self.rows)[2 * (page - 1) : 2 * page]
        rows = [
            {
                "request_id": f"r{number}",
                "call_type": "acompletion",
                "startTime": f"2026-11-2{number}T10:00:00Z",
                "endTime": f"2026-11-2{number}T10:00:01Z",
                "model": "openai/gpt-4.1",
                "custom_llm_provider": "openai",
                "spend": 0.5,
                "prompt_tokens": 10,
                "completion_tokens": 1,
                "end_user": f"u{number}",
            }
            for number in numbers
        ]
        pages = -(-self.rows // 2)
        body = {"data": rows, "total": self.rows, "page": page, "total_pages": pages}
        self.answer(200, json.dumps(body).encode())

    do_GET = exchange  # noqa: N815 - the base class calls it so


class Refusing(Exchange):
    """Refuses every call, and repeats the key, as a careless proxy does."""

    def exchange(self) -> None:
        text = f"the key {self.received_headers()['authorization']} may not read this"
        self.answer(403, json.dumps({"error": {"message": text}}).encode())

    do_GET = exchange  # noqa: N815 - the base class calls it so


def read(url: str, **more: Any) -> AttachReport:
    request = AttachRequest([url], **more)
    return attach(request, clock=ManualClock(NOW), catalogue=Catalogue())


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    SpendLogs.asked.clear()
    monkeypatch.setenv("LITELLM_API_KEY", KEY)


def test_litellms_spend_logs_are_read_by_pages_with_the_newest_first() -> None:
    with serving_http(SpendLogs) as port:
        found = read(f"http://127.0.0.1:{port}")

    (model,) = write_json(found)["models"]
    assert (model["requests"], model["cost_usd"]) == (5, 2.5)
    assert len(SpendLogs.asked) == 3
    query = parse_qs(urlsplit(SpendLogs.asked[0][0]).query)
    assert query["sort_order"] == ["desc"]
    assert query["start_date"] == ["2026-11-16 09:00:00"]
    assert all(path.startswith("/spend/logs/v2?") for path, _ in SpendLogs.asked)
    assert {header for _, header in SpendLogs.asked} == {f"Bearer {KEY}"}
    assert any("no request has its messages" in obstacle for obstacle in found.obstacles)


def test_an_api_that_takes_too_long_is_read_in_part_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_reading, "API_TIME_S", -1.0)

    with serving_http(SpendLogs) as port:
        found = read(f"http://127.0.0.1:{port}")

    assert found.survey.requests == 2
    assert any("the newest 2 of 5 rows were read" in obstacle for obstacle in found.obstacles)


@pytest.mark.parametrize("by_file", [True, False])
def test_the_key_comes_from_a_file_or_the_environment_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_file: bool
) -> None:
    words = ["--key-env", "OUR_KEY"]
    if by_file:
        file = tmp_path / "key"
        file.write_text(f"{KEY}\n", encoding="utf-8")
        words = ["--source-key-file", str(file)]
    else:
        monkeypatch.setenv("OUR_KEY", KEY)
    page = tmp_path / "page.html"

    with serving_http(SpendLogs) as port:
        url = f"http://127.0.0.1:{port}"
        done = CliRunner().invoke(program, ["attach", url, *words, "--html", str(page)])
        refused = CliRunner().invoke(program, ["attach", url, "--key-env", "ABSENT", "--json"])

    assert done.exit_code == 0
    assert KEY not in done.output + page.read_text(encoding="utf-8")
    assert refused.exit_code == 2
    assert "the environment variable ABSENT has no key" in refused.output


def test_a_refusal_is_shown_without_the_key() -> None:
    with serving_http(Refusing) as port, pytest.raises(UpstreamError) as refused:
        read(f"http://127.0.0.1:{port}")

    assert "answers /spend/logs/v2 with 403" in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://litellm.example.com", "http://10.0.0.5:4000", "ftp://127.0.0.1", "https://"],
)
def test_a_key_goes_only_over_https_or_to_this_machine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LITELLM_API_KEY")

    with pytest.raises(InputError, match="a key goes only over https, or to this machine"):
        read(url)


def test_a_key_in_the_address_is_refused_without_repeating_it() -> None:
    with pytest.raises(InputError) as refused:
        check_url(f"https://user:{KEY}@litellm.example.com")

    assert KEY not in str(refused.value)


class EndingClock(ManualClock):
    """A clock whose time is over when the receiver has what a test waits for."""

    def __init__(self, receiver: list[OtlpReceiver], exports: int) -> None:
        super().__init__(NOW)
        self._receiver = receiver
        self._exports = exports

    def monotonic(self) -> float:
        received = self._receiver[0].received if self._receiver else None
        is_over = received is not None and len(received.documents) >= self._exports
        return 1_000.0 if is_over else 0.0


@contextmanager
def receiving(survey: TrafficSurvey, exports: int) -> Iterator[OtlpReceiver]:
    """Receives in a thread until that many exports came, or a limit ended it."""
    receivers: list[OtlpReceiver] = []
    receiver = OtlpReceiver("127.0.0.1", 0, EndingClock(receivers, exports))
    receivers.append(receiver)
    thread = threading.Thread(target=lambda: add_records(receiver.receive(60), survey))
    thread.start()
    try:
        yield receiver
    finally:
        thread.join(60)


def span_export(**attributes: str) -> Mapping[str, Any]:
    span = {
        "traceId": "t",
        "spanId": "s",
        "startTimeUnixNano": "1780836000000000000",
        "endTimeUnixNano": "1780836001000000000",
        "attributes": [
            {"key": name.replace("__", "."), "value": {"stringValue": value}}
            for name, value in attributes.items()
        ],
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def test_spans_of_opentelemetrys_own_exporter_are_received_as_protobuf() -> None:
    survey = TrafficSurvey()

    with receiving(survey, 1) as receiver:
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{receiver.port}/v1/traces")
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("test").start_as_current_span("chat gpt-4.1") as span:
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.provider.name", "openai")
            span.set_attribute("gen_ai.request.model", "gpt-4.1")
            span.set_attribute("gen_ai.usage.input_tokens", 12)
            span.set_attribute("gen_ai.usage.output_tokens", 3)
        provider.shutdown()

    (model,) = survey.ranked
    assert (model.name, model.requests, model.input_tokens) == ("openai/gpt-4.1", 1, 12)
    assert model.timed == 1


def test_spans_are_received_as_json_also_packed() -> None:
    survey = TrafficSurvey()
    export = json.dumps(span_export(gen_ai__request__model="gpt-4.1")).encode()

    with receiving(survey, 1) as receiver:
        answer = httpx.post(
            f"http://127.0.0.1:{receiver.port}/v1/traces",
            content=gzip.compress(export),
            headers={"content-type": "application/json", "content-encoding": "gzip"},
        )

    assert (answer.status_code, answer.json()) == (200, {})
    assert survey.requests == 1


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/metrics", {"content-type": "application/json"}, b"{}", 404),
        ("/v1/traces", {"content-type": "application/json"}, b"[]", 400),
        ("/v1/traces", {"content-type": "application/json"}, b"{", 400),
        ("/v1/traces", {"content-type": "application/x-protobuf"}, b"\xff\xff", 400),
        ("/v1/traces", {"content-encoding": "gzip"}, b"no gzip", 400),
        ("/v1/traces", {"content-type": "application/json"}, b"{" + b" " * 200, 413),
    ],
)
def test_what_is_no_export_is_refused_and_the_receiver_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    status: int,
) -> None:
    monkeypatch.setattr(otlp_receiver, "MAX_BODY_BYTES", 180)
    survey = TrafficSurvey()

    with receiving(survey, 1) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        refused = httpx.post(url + path, content=body, headers=dict(headers))
        httpx.post(url + "/v1/traces", json={"resourceSpans": []})

    assert refused.status_code == status
    assert survey.requests == 0


def test_a_packed_export_that_grows_beyond_the_limit_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp_receiver, "MAX_BODY_BYTES", 1_000)

    with receiving(TrafficSurvey(), 1) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/v1/traces"
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        bomb = gzip.compress(b" " * 100_000)
        refused = httpx.post(url, content=bomb, headers=headers)
        httpx.post(url, json={"resourceSpans": []})

    assert refused.status_code == 400


def test_the_receiver_ends_at_its_limit_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp_receiver, "MAX_SPANS", 1)
    survey = TrafficSurvey()
    export = span_export(gen_ai__request__model="gpt-4.1")

    with receiving(survey, 99) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/v1/traces"
        answers = [httpx.post(url, json=export).status_code for _ in range(2)]

    assert answers == [200, 507]
    assert survey.requests == 1
    assert receiver.received.refused == "1 spans or 64 MiB"


@pytest.mark.parametrize("address", ["0.0.0.0:4318", "collector:4318", "4318", "127.0.0.1:x"])
def test_the_receiver_listens_on_this_machine_only(address: str) -> None:
    with pytest.raises(InputError, match="--otlp"):
        parse_address(address)
