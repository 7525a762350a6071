import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evals.suites.items import Item, load_items
from harness.frame.errors import InputError
from harness.gate.pins import ServedModel, Sighting
from harness.gate.suite_plan import overlap_share, texts_fingerprint
from harness.providers.models.model_names import (
    known_model_names,
    normalize_model_name,
    provider_host,
    same_host,
)
from harness.providers.target import Provider, Target

pytestmark = pytest.mark.req("F2")

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_share_is_of_the_smaller_suite_so_that_padding_hides_nothing() -> None:
    real = [f"question {n}" for n in range(100)]
    padded = [*real, *(f"padding {n}" for n in range(5_000))]

    assert overlap_share(texts_fingerprint(real), texts_fingerprint(padded)) == 1.0
    assert overlap_share(texts_fingerprint(padded), texts_fingerprint(real[:10])) == 1.0
    assert overlap_share(texts_fingerprint(real[:50]), texts_fingerprint(real[50:])) == 0.0
    assert overlap_share(texts_fingerprint(real), "") == 0.0


@pytest.mark.parametrize(
    ("base", "place"),
    [
        ("https://API.example.com/v1", "api.example.com"),
        ("https://api.example.com.:443/other/v1", "api.example.com"),
        ("http://127.0.0.1:9/v1", "127.0.0.1:9"),
        ("http://api.example.com:80", "api.example.com"),
        ("https://[2001:db8::0:1]:8000/v1", "2001:db8::1:8000"),
        ("https://[::1]:8000/v1", "127.0.0.1:8000"),
        ("http://localhost:8000/v1", "127.0.0.1:8000"),
        ("http://localhost.localdomain:8000/v1", "127.0.0.1:8000"),
        ("http://127.0.0.2:8000/v1", "127.0.0.1:8000"),
        ("http://0.0.0.0:8000/v1", "127.0.0.1:8000"),
        ("http://[::]:8000/v1", "127.0.0.1:8000"),
        ("http://[64:ff9b::7f00:1]:8000/v1", "127.0.0.1:8000"),
        ("http://exämple.com/v1", "xn--exmple-cua.com"),
        ("http://exa\u0308mple.com/v1", "xn--exmple-cua.com"),
        ("http://XN--exmple-cua.com/v1", "xn--exmple-cua.com"),
        ("http://example\u3002com/v1", "example.com"),
    ],
)
def test_a_host_is_its_name_however_its_address_is_written(base: str, place: str) -> None:
    assert provider_host(Provider("p", "custom", base)) == place


def test_a_model_is_called_what_it_is_asked_for_and_what_it_answers_with() -> None:
    sighting = Sighting("t", ServedModel("GPT-X-2026-05-01"), NOW, NOW)

    assert known_model_names(Target("p", " Gpt-X"), [sighting]) == {
        "gpt-x",
        "gpt-x-2026-05-01",
    }
    assert (
        normalize_model_name("ｇｐｔ-x")
        == normalize_model_name("gpt\u2011x")
        == normalize_model_name("g\u200bpt-x")
        == "gpt-x"
    )


def test_a_provider_that_is_gone_may_be_any_host() -> None:
    assert provider_host(None) == ""
    assert same_host("", "api.example.com")
    assert same_host("api.example.com", "")
    assert not same_host("api.example.com", "other.example.com")


SUM = [
    {"role": "system", "content": "A number."},
    {"role": "user", "content": "2+2?"},
]


def loaded(
    folder: Path,
    name: str,
    content: object,
    fields: tuple[str, str],
) -> Item:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    (item,) = load_items(
        file,
        name="s",
        input_field=fields[0],
        target_field=fields[1],
    )
    return item


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ({"input": SUM, "ideal": "4"}, ("input", "ideal")),
        (
            {"messages": [*SUM, {"role": "assistant", "content": "4"}]},
            ("input", ""),
        ),
        ({"input": {"question": "2+2?"}, "expected": "4"}, ("input", "")),
        (
            {"inputs": {"q": "2+2?"}, "outputs": {"answer": "4"}},
            ("inputs", "outputs"),
        ),
        ("q,__expected\n2+2?,equals: 4\n", ("q", "__expected")),
    ],
    ids=[
        "openai-evals",
        "fine-tuning",
        "braintrust",
        "langsmith",
        "promptfoo",
    ],
)
def test_a_record_of_another_tool_asks_and_wants_the_same(
    tmp_path: Path,
    content: object,
    fields: tuple[str, str],
) -> None:
    name = "data.csv" if isinstance(content, str) else "data.jsonl"

    item = loaded(tmp_path, name, content, fields)

    assert (item.input, item.target) == ("2+2?", "4")
    if "system" in str(content):
        assert item.metadata["messages"] == SUM


def test_an_array_and_choices_with_labels_are_read(tmp_path: Path) -> None:
    choices = {"text": ["3", "4"], "label": ["1", "2"]}
    rows = [
        {
            "input": "2+2?",
            "choices": choices,
            "target": "2",
        }
    ]

    item = loaded(tmp_path, "data.json", rows, ("input", ""))

    assert (item.choices, item.target) == (("3", "4"), "B")


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("llm-rubric: says four", "llm-rubric"),
        ("is-json", "is-json"),
        ("not-contains: 5", "not-contains"),
        ("javascript: output > 3", "javascript"),
        ("similar(0.8): four", "similar"),
        ("contains sugar", ""),
        ("equals", ""),
    ],
)
def test_an_assertion_is_never_compared_as_text(
    tmp_path: Path,
    target: str,
    kind: str,
) -> None:
    row = {"input": "2+2?", "target": target}

    if not kind:
        assert loaded(tmp_path, "data.jsonl", row, ("input", "")).target == target
        return
    with pytest.raises(InputError, match=f"promptfoo's assertion {kind}, not a right"):
        loaded(tmp_path, "data.jsonl", row, ("input", ""))
