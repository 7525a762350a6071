"""What a provider's answers say about it, and what to do next."""

import json

import pytest

from harness.domain.providers.probe import (
    FindingStatus,
    Heard,
    Subject,
    findings,
    is_content,
    list_path,
    listed_models,
    streamed_question,
)
from harness.domain.routing.target import Provider, Target

pytestmark = pytest.mark.req("D5")
UP = Provider("up", "openai", "http://up.test/v1")
TARGET = Target("up", "m")
LISTED = json.dumps({"data": [{"id": "m"}]}).encode()
MODELS = Heard(200, 0.05, LISTED, skew_s=0.4)
ANSWER = Heard(200, 0.1, first_s=0.25, skew_s=0.4)
OK, WARN, FAIL, UNKNOWN = FindingStatus


@pytest.mark.parametrize(
    ("models", "chat", "subject", "status", "step"),
    [
        (MODELS, ANSWER, Subject.KEY, OK, ""),
        (MODELS, ANSWER, Subject.MODEL, OK, ""),
        (MODELS, ANSWER, Subject.FIRST_TOKEN, OK, ""),
        (MODELS, ANSWER, Subject.CLOCK, OK, ""),
        (Heard(None, 5, error="no answer"), None, Subject.REACHABLE, FAIL, "--api-base"),
        (Heard(401, 0.1), Heard(401, 0.1), Subject.KEY, FAIL, "credential set up"),
        (Heard(404, 0.1), Heard(403, 0.1), Subject.KEY, FAIL, "credential set up"),
        (Heard(404, 0.1), ANSWER, Subject.KEY, OK, ""),
        (Heard(500, 0.1), Heard(500, 0.1), Subject.KEY, UNKNOWN, ""),
        (MODELS, Heard(404, 0.1, error="404: gone"), Subject.MODEL, FAIL, "retired"),
        (Heard(200, 0.1, b'{"data":[{"id":"x"}]}'), None, Subject.MODEL, WARN, "retired"),
        (Heard(200, 0.1, b"nonsense"), None, Subject.MODEL, UNKNOWN, ""),
        (MODELS, Heard(429, 0.1, error="429: slow"), Subject.FIRST_TOKEN, FAIL, "quota"),
        (MODELS, Heard(402, 0.1, error="402: pay"), Subject.FIRST_TOKEN, FAIL, "top up"),
        (MODELS, Heard(503, 0.1, error="503: no"), Subject.FIRST_TOKEN, FAIL, "status page"),
        (MODELS, Heard(400, 0.1, error="400: what"), Subject.FIRST_TOKEN, FAIL, "parameters"),
        (MODELS, Heard(None, 15, error="late"), Subject.FIRST_TOKEN, FAIL, "in time"),
        (MODELS, Heard(200, 0.1, error="ended"), Subject.FIRST_TOKEN, WARN, "model probe"),
        (MODELS, None, Subject.FIRST_TOKEN, UNKNOWN, "ask the route"),
        (Heard(200, 0.1, skew_s=-400), None, Subject.CLOCK, WARN, "NTP"),
        (Heard(200, 0.1), None, Subject.CLOCK, UNKNOWN, ""),
    ],
)
def test_each_finding_has_its_next_step(
    models: Heard, chat: Heard | None, subject: Subject, status: FindingStatus, step: str
) -> None:
    [found] = [e for e in findings(UP, TARGET, models, chat) if e.subject is subject]
    assert found.status is status
    assert step in found.next_step
    assert bool(found.next_step) is (bool(step))


def test_nothing_more_is_said_of_what_cannot_be_reached() -> None:
    found = list(findings(UP, TARGET, Heard(None, 5, error="no answer"), None))
    assert [each.subject for each in found] == [Subject.REACHABLE]


def test_a_provider_without_a_target_is_still_looked_at() -> None:
    found = {e.subject: e.status for e in findings(UP, None, MODELS, None)}
    assert found[Subject.FIRST_TOKEN] is UNKNOWN
    assert Subject.MODEL not in found


def test_the_question_is_asked_in_the_kinds_own_protocol() -> None:
    asked = streamed_question(Provider("a", "anthropic", "http://h"), Target("a", "claude"))
    assert asked is not None
    assert asked[0] == "/messages"
    assert asked[1]["max_tokens"] == 64
    assert streamed_question(Provider("b", "bedrock", ""), Target("b", "m")) is None


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}', False),
        (b'data: {"choices":[{"delta":{"content":"r"}}]}', True),
        (b'data: {"choices":[{"delta":{"reasoning_content":"h"}}]}', True),
        (b'data: {"type":"content_block_delta","delta":{"text":"r"}}', True),
        (b'data: {"choices":[]}', False),
        (b"data: [DONE]", False),
        (b": ping", False),
        (b"data: []", False),
    ],
)
def test_the_first_content_is_told_from_what_comes_before(line: bytes, content: bool) -> None:  # noqa: FBT001 - a table
    assert is_content(line) is content


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b'{"data":[{"id":"a"},{"id":"b"}]}', {"a", "b"}),
        (b'{"models":[{"name":"models/gemini-3-pro"}]}', {"gemini-3-pro"}),
        (b'{"models":3}', set()),
        (b"[]", set()),
    ],
)
def test_a_list_of_models_is_read_in_whatever_words_it_comes(
    content: bytes, names: set[str]
) -> None:
    assert listed_models(content) == names


def test_a_list_is_asked_for_as_a_whole() -> None:
    paths = [list_path(kind) for kind in ("openai", "anthropic", "gemini")]
    assert paths == ["/models", "/models?limit=1000", "/models?pageSize=1000"]
