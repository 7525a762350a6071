import json
from dataclasses import replace

import pytest

from harness.app.doctor.provider_requests import find_gap
from harness.frame.sse import EventPayloads
from harness.providers.calls import own_server
from harness.providers.calls.probe import (
    ProbeFinding,
    ProbeReply,
    ProbeStatus,
    ProbeSubject,
    is_content_event,
    is_listed,
    missing_key_finding,
    models_path,
    parse_model_list,
    probe_findings,
    streamed_probe_request,
)
from harness.providers.models.capabilities import Capabilities, Endpoint
from harness.providers.target import Provider, Target

pytestmark = pytest.mark.req("D5")
UP = Provider("up", "openai", "http://up.test/v1")
TARGET = Target("up", "m")
LISTED = json.dumps({"data": [{"id": "m"}]}).encode()
MODELS = ProbeReply(200, 0.05, LISTED, skew_s=0.4)
ANSWER = ProbeReply(
    200,
    0.1,
    first_s=0.25,
    skew_s=0.4,
)
OK, WARN, FAIL, UNKNOWN = ProbeStatus
R = ProbeReply
S = ProbeSubject


@pytest.mark.parametrize(
    ("models", "chat", "subject", "status", "step"),
    [
        (MODELS, ANSWER, S.KEY, OK, ""),
        (MODELS, ANSWER, S.MODEL, OK, ""),
        (MODELS, ANSWER, S.FIRST_TOKEN, OK, ""),
        (MODELS, ANSWER, S.CLOCK, OK, ""),
        (
            R(None, 5, error="no answer"),
            None,
            S.REACHABLE,
            FAIL,
            "--api-base",
        ),
        (R(401, 0.1), R(401, 0.1), S.KEY, FAIL, "provider key set up"),
        (R(404, 0.1), R(403, 0.1), S.KEY, FAIL, "provider key set up"),
        (R(404, 0.1), ANSWER, S.KEY, OK, ""),
        (R(500, 0.1), R(500, 0.1), S.KEY, UNKNOWN, ""),
        (MODELS, R(404, 0.1, error="404: gone"), S.MODEL, FAIL, "retired"),
        (
            R(200, 0.1, b'{"data":[{"id":"x"}]}'),
            None,
            S.MODEL,
            WARN,
            "retired",
        ),
        (R(200, 0.1, b"nonsense"), None, S.MODEL, UNKNOWN, ""),
        (
            MODELS,
            R(429, 0.1, error="429: slow"),
            S.FIRST_TOKEN,
            FAIL,
            "quota",
        ),
        (
            MODELS,
            R(402, 0.1, error="402: pay"),
            S.FIRST_TOKEN,
            FAIL,
            "top up",
        ),
        (
            MODELS,
            R(503, 0.1, error="503: no"),
            S.FIRST_TOKEN,
            FAIL,
            "status page",
        ),
        (
            MODELS,
            R(400, 0.1, error="400: what"),
            S.FIRST_TOKEN,
            FAIL,
            "parameters",
        ),
        (MODELS, R(None, 15, error="late"), S.FIRST_TOKEN, FAIL, "in time"),
        (
            MODELS,
            R(200, 0.1, error="ended"),
            S.FIRST_TOKEN,
            WARN,
            "model probe",
        ),
        (
            MODELS,
            None,
            S.FIRST_TOKEN,
            UNKNOWN,
            "send a request to its route",
        ),
        (R(200, 0.1, skew_s=-400), None, S.CLOCK, WARN, "NTP"),
        (R(200, 0.1), None, S.CLOCK, UNKNOWN, ""),
    ],
)
def test_each_finding_has_its_next_step(
    models: ProbeReply,
    chat: ProbeReply | None,
    subject: ProbeSubject,
    status: ProbeStatus,
    step: str,
) -> None:
    [finding] = [e for e in probe_findings(UP, TARGET, models, chat) if e.subject is subject]
    assert finding.status is status
    assert step in finding.next_step
    assert bool(finding.next_step) is (bool(step))


def test_a_listed_field_that_may_state_an_end_and_is_unknown_is_a_warning_and_no_failure() -> (
    None
):
    def found(**fields: object) -> list[ProbeFinding]:
        listed = json.dumps({"data": [{"id": "m", "shutdown_date": None, **fields}]}).encode()
        findings = probe_findings(UP, TARGET, replace(MODELS, content=listed), ANSWER)
        return [finding for finding in findings if finding.subject is S.LIST]

    assert found() == []
    (finding,) = found(retire_on="2026-12-11")
    assert finding.status is WARN
    assert finding.found.endswith('cannot read: retire_on ("2026-12-11")')
    assert "end_date" in finding.next_step


def test_a_provider_without_a_key_is_given_one_or_signed_in_to_by_its_kind() -> None:
    for kind, verb in (("openai", "set"), ("github_copilot", "login")):
        provider = Provider("mine", kind, "https://example.com")
        step = missing_key_finding(provider).next_step
        assert step == f"`swapproof provider key {verb} mine`"


def test_the_question_is_asked_in_the_kinds_own_protocol() -> None:
    asked = streamed_probe_request(
        Provider("a", "anthropic", "http://h"), Target("a", "claude")
    )
    assert asked is not None
    assert asked[0] == "/messages"
    assert asked[1]["max_tokens"] == 64
    assert streamed_probe_request(Provider("b", "bedrock", ""), Target("b", "m")) is None
    vectors = Provider("c", "vllm", "http://h", models={"m": Capabilities(chat=False)})
    asked = streamed_probe_request(vectors, Target("c", "m", parameters={"temperature": 0}))
    assert asked is not None
    assert (asked[0], set(asked[1])) == ("/embeddings", {"model", "input"})


@pytest.mark.parametrize(
    ("event", "content"),
    [
        (
            b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}',
            False,
        ),
        (b'data: {"choices":[{"delta":{"content":"r"}}]}', True),
        (b'data: {"choices":[{"delta":{"reasoning_content":"h"}}]}', True),
        (b'data: {"type":"content_block_delta","delta":{"text":"r"}}', True),
        (b'data: {"choices":[{"delta":\ndata: {"content":"r"}}]}', True),
        (b'data: {"choices":[]}', False),
        (b"data: [DONE]", False),
        (b": ping", False),
        (b"data: []", False),
    ],
)
def test_the_first_content_is_told_from_what_comes_before(event: bytes, content: bool) -> None:  # noqa: FBT001 - a table
    assert any(map(is_content_event, EventPayloads().read(event + b"\n\n"))) is content


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b'{"data":[{"id":"a"},{"id":"b"}]}', {"a", "b"}),
        (b'{"models":[{"name":"models/gemini-3-pro"}]}', {"gemini-3-pro"}),
        (
            b'{"models":[{"name":"models/q"}],"data":[{"id":"models/q"}]}',
            {"models/q"},
        ),  # llama.cpp
        (b'{"data":["a",{"id":null},{"id":"b"}]}', {"b"}),
        (b'{"models":3}', set()),
        (b"[]", set()),
    ],
)
def test_a_list_of_models_is_read_in_whatever_words_it_comes(
    content: bytes, names: set[str]
) -> None:
    assert parse_model_list(content) == names


def test_ollama_lists_a_model_with_its_tag_and_answers_without() -> None:
    names = {"llama3.2:latest", "qwen3:8b"}

    assert [is_listed(model, names) for model in ("llama3.2", "qwen3")] == [True, False]


def test_a_list_is_asked_for_as_a_whole() -> None:
    paths = [models_path(kind) for kind in ("openai", "anthropic", "gemini")]
    assert paths == [
        "/models",
        "/models?limit=1000",
        "/models?pageSize=1000",
    ]


@pytest.mark.parametrize(
    ("stream", "gap"),
    [
        (b"", "it sends no `response.created`"),
        (
            b'data: {"type":"response.output_item.added","item":{"type":"message"}}\n\n',
            "its `response.output_item.added` has no `output_index`",
        ),
        (b"data: [DONE]\n\ndata: 7\n\n", "it sends no `response.created`"),
    ],
    ids=["nothing", "an item without its place", "no events"],
)
def test_a_local_servers_own_answer_that_is_not_whole_is_not_proposed(
    stream: bytes, gap: str
) -> None:
    assert find_gap(Endpoint.RESPONSES, stream) == gap


@pytest.mark.parametrize(
    ("kind", "asked", "listed", "window"),
    [
        (
            "llama_cpp",
            '{"default_generation_settings":{"n_ctx":4096}}',
            "",
            4096,
        ),
        (
            "ollama",
            '{"models":[7,{"name":"m:latest","context_length":4096}]}',
            "",
            4096,
        ),
        (
            "ollama",
            '{"models":[{"name":"n:latest","context_length":4096}]}',
            "",
            None,
        ),
        ("tgi", '{"model_id":"m","max_total_tokens":2048}', "", 2048),
        ("vllm", None, ',"max_model_len":8192', 8192),
        ("sglang", None, ',"max_model_len":16384', 16384),
        ("llama_cpp", "nonsense", ',"meta":{"n_ctx":512}', 512),
        ("tgi", '{"max_total_tokens":true}', "", None),
    ],
)
def test_a_server_of_your_own_says_how_long_a_request_may_be(
    kind: str,
    asked: str | None,
    listed: str,
    window: int | None,
) -> None:
    provider = Provider("up", kind, "http://up.test:8080/v1/")
    server = own_server.own_server(provider)
    assert server is not None
    assert (
        own_server.at_server_root(provider)
        .url(server.health)
        .startswith("http://up.test:8080/")
    )
    assert "/v1" not in own_server.at_server_root(provider).url(server.health)
    about = R(200, 0.1, asked.encode()) if asked is not None else None
    assert bool(server.about) is (about is not None)
    models = R(200, 0.1, b'{"data":[{"id":"m"%b}]}' % listed.encode())

    def found(provider: Provider, health: ProbeReply) -> dict[ProbeSubject, ProbeFinding]:
        replies = own_server.ServerReplies(server, health, about)
        findings = own_server.server_findings(provider, TARGET, models, replies)
        return {finding.subject: finding for finding in findings}

    plain = found(provider, R(200, 0.1))
    assert plain[S.SERVER].status is OK
    assert (S.CONTEXT in plain) is (window is not None)
    loading = found(provider, R(503, 0.1, error="503: Loading model"))[S.SERVER]
    assert (loading.status, "wait" in loading.next_step) == (FAIL, True)
    assert found(provider, R(404, 0.1))[S.SERVER].status is UNKNOWN
    if window is not None:
        assert f"{window:,} tokens" in plain[S.CONTEXT].found
        longer = replace(provider, models={"m": Capabilities(context_window=window + 1)})
        assert found(longer, R(200, 0.1))[S.CONTEXT].status is WARN
