"""Each source of items: taken as its tool writes it, or refused by place and reason.

`tests/support/evals/sources` says where each file is from.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.suites.dataset_import import ImportedDataset, read_dataset
from evals.suites.source_formats import check_source
from evals.suites.source_records import read_source
from harness.app.installation import open_installation
from harness.app.suite_import import SourceChoice, SuiteImport, import_source
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from tests.support.browser.dashboard_data import ANA, configured

pytestmark = pytest.mark.req("F6", "F9")

SAMPLES = Path(__file__).resolve().parents[1] / "support/evals/sources"
Record = Mapping[str, Any]


def lines(*records: Record) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


def read(
    folder: Path,
    content: bytes,
    wanted: str = "",
    *,
    human: str = "",
    name: str = "set.txt",
) -> ImportedDataset:
    file = folder / name
    file.write_bytes(content)
    source = read_source(file)
    return read_dataset(
        source, check_source(source, wanted), human_score=human, scorer="rubric"
    )


def score(
    name: str,
    value: object,
    kind: str = "NUMERIC",
    by: str = "ANNOTATION",
) -> Record:
    return {
        "name": name,
        "source": by,
        "dataType": kind,
        "value": value,
    }


LANGFUSE = {
    "datasetId": "d",
    "input": "q",
    "expectedOutput": None,
    "output": "the answer",
}
RUN = {
    "run_type": "llm",
    "inputs": {"q": "q"},
    "outputs": {"a": "wrong"},
}
APP = {"key": "right", "feedback_source": {"type": "app"}}
EVENT = {
    "_xact_id": "1",
    "input": "q",
    "output": "o",
    "scores": {"review": 1, "auto": 0.5},
}


@pytest.mark.parametrize(
    ("record", "human", "target"),
    [
        (
            {**LANGFUSE, "scores": [score("fix", "right", "CORRECTION")]},
            "",
            "right",
        ),
        (
            {**LANGFUSE, "scores": [score("team", "refund", "CATEGORICAL")]},
            "",
            "refund",
        ),
        (
            {**LANGFUSE, "scores": [score("level", "1", "CATEGORICAL")]},
            "",
            "1",
        ),
        (
            {**LANGFUSE, "scores": [score("ok", 1, "BOOLEAN")]},
            "",
            "the answer",
        ),
        (
            {
                **LANGFUSE,
                "scores": [score("ok", 1), score("auto", 0, by="EVAL")],
            },
            "",
            "the answer",
        ),
        ({**LANGFUSE, "scores": [score("auto", 1, by="EVAL")]}, "", None),
        (
            {**LANGFUSE, "scores": [score("auto", 1, by="API")]},
            "auto",
            "the answer",
        ),
        (
            {**LANGFUSE, "scores": [score("ok", 1), score("tone", 0.5)]},
            "",
            None,
        ),
        (
            {
                **LANGFUSE,
                "scores": [score("ok", 0)],
                "expectedOutput": "e",
            },
            "",
            "e",
        ),
        ({**LANGFUSE, "quality": [1]}, "quality", "the answer"),
        (
            {**RUN, "feedback": [{**APP, "correction": {"a": "good"}}]},
            "",
            {"a": "good"},
        ),
        ({**RUN, "feedback": [{**APP, "score": 1}]}, "", {"a": "wrong"}),
        ({**RUN, "feedback": [{**APP, "value": "spam"}]}, "", "spam"),
        (RUN, "", None),
        ({**EVENT, "expected": "e"}, "", "e"),
        (EVENT, "", None),
        (EVENT, "review", "o"),
        (EVENT, "auto", None),
    ],
)
def test_a_persons_score_labels_a_record_without_a_right_answer(
    tmp_path: Path,
    record: Record,
    human: str,
    target: object,
) -> None:
    if target is None:
        with pytest.raises(InputError, match="no question with a right answer"):
            read(tmp_path, lines(record), human=human)
    else:
        (item,) = read(tmp_path, lines(record), human=human).items
        assert item["target"] == target


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"", "is empty"),
        (b"input,target\n", "has no records"),
        (b"[]", "has no records"),
        (b"[1]", ":1: entry 1 of the list must be an object"),
        (b'{"input": "a", "target": "b"}\n{"input":', ":2: not JSON"),
        (b'{"input": "a",\n"target": b}', ":2: not JSON"),
        (b'{"input": "a", "target": NaN}', ":1: not JSON: NaN"),
        (b"[" * 100_000, ":1: not JSON"),
        (b'input,target\n"a,b', ":2: not CSV"),
        (b"input,target\na,b,c\n", ":2: the row has more cells"),
        ("input,target\nä,b\n".encode("latin-1"), ":2: not UTF-8 text"),
        (b"PK\x03\x04", "an Excel workbook"),
        (
            lines({"ideal": "b"}),
            ":1: field 'input': missing or empty; fields here: ideal",
        ),
        (
            lines(
                {
                    "input": "a",
                    "target": "b",
                    "id": {},
                }
            ),
            ":1: field 'id': must be",
        ),
        (
            lines(
                *(
                    {
                        "id": 1,
                        "input": text,
                        "target": "b",
                    }
                    for text in "ac"
                )
            ),
            ":2: field 'id': '1' is already the id of",
        ),
        (
            lines({"doc_id": 1}),
            "samples of lm-eval, which has results and no items",
        ),
        (
            lines({"question": "a"}),
            "is no known data set, .*its fields are question",
        ),
        (
            lines(
                {**LANGFUSE, "scores": [score("a", "x", "CATEGORICAL")]},
                {**LANGFUSE, "scores": [score("b", "y", "CATEGORICAL")]},
            ),
            ":2: people gave the categories 'a' .* and 'b'",
        ),
        (
            lines(*({**LANGFUSE, "scores": [score("stars", stars)]} for stars in (1, 5))),
            "no question with a right answer",
        ),
    ],
)
def test_bad_input_is_named_by_place_and_reason(
    tmp_path: Path,
    content: bytes,
    because: str,
) -> None:
    with pytest.raises(InputError, match=f"set.txt.*{because}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "items"),
    [
        ("input;target\nhä;b\n".encode("utf-16"), [("hä", "b")]),
        (b"input\ttarget\na;b\tc\n", [("a;b", "c")]),
        (lines({"input": "a\u2028b", "target": "c"}), [("a\u2028b", "c")]),
        (b'{"input": "a\\ud83d", "target": "b"}\n', [("a\ufffd", "b")]),
        (
            f"input,target\n{'x' * 200_000},b\n".encode(),
            [("x" * 200_000, "b")],
        ),
        (b"inputs.q,outputs.a\nx,y\n", [({"q": "x"}, {"a": "y"})]),
        (
            lines({"data": [{"input": "a", "target": "b"}], "meta": {}}),
            [("a", "b")],
        ),
        (lines(*[{"input": "a", "target": "b"}] * 3), [("a", "b")]),  # repeats are one item
        (lines({"input": "a", "target": []}), [("a", [])]),  # the model must not call a tool
        (lines({"input": "a", "ideal": "[1]"}), [("a", "[1]")]),
        (
            lines({"input": "a", "target": {"type": "x", "content": "y"}}),
            [("a", {"type": "x", "content": "y"})],
        ),
        (
            lines(
                *(
                    {
                        "input": "a",
                        "target": 1,
                        "metadata": {"rules": [n]},
                    }
                    for n in "12"
                )
            ),
            [("a", 1)] * 2,
        ),
    ],
)
def test_a_text_in_any_form_is_read_as_it_was_meant(
    tmp_path: Path,
    content: bytes,
    items: list[tuple[object, object]],
) -> None:
    found = read(tmp_path, content).items

    assert [(item["input"], item["target"]) for item in found] == items


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("langfuse", True),
        ("deepeval", True),
        ("jsonl", True),
        ("braintrust", False),
        ("csv", False),
        ("inspect", False),
        ("otel", False),
        ("litellm", False),
    ],
)
def test_a_named_format_is_what_the_file_has_or_the_file_is_refused(
    tmp_path: Path,
    wanted: str,
    *,
    fits: bool,
) -> None:
    content = lines(
        {
            "datasetId": "d",
            "input": "q",
            "expectedOutput": "a",
        }
    )
    if fits:
        assert read(tmp_path, content, wanted).items
    else:
        with pytest.raises(InputError, match=r"it looks like an export of Langfuse.*--from"):
            read(tmp_path, content, wanted)


def imported(
    folder: Path,
    source: str,
    **choice: Any,
) -> SuiteImport:
    installation = open_installation(configured(folder))
    return import_source(
        installation,
        ANA,
        source,
        SuiteSettings("own"),
        SourceChoice(**choice),
    )


TOLD = [{"role": "system", "content": "You route mails."}]
ASKED = [
    *TOLD,
    {
        "role": "user",
        "content": "The parcel came broken, mail me at [EMAIL_1].",
    },
]


@pytest.mark.spine
@pytest.mark.parametrize(
    ("sample", "written"),
    [
        ("otel_messages.jsonl", 2),
        ("otel_openllmetry.jsonl", 2),
        ("otel_openinference.jsonl", 2),
        ("otel_events.json", 2),
        ("litellm_spend_logs.jsonl", 4),
    ],
)
def test_logged_requests_become_a_redacted_file_to_label_which_becomes_a_suite(
    tmp_path: Path,
    sample: str,
    written: int,
) -> None:
    done = imported(tmp_path, str(SAMPLES / sample))

    assert done.to_label is not None
    file = done.to_label.file
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert (file.stat().st_mode & 0o777, len(found)) == (0o600, written)
    assert found[0]["messages"] == ASKED
    assert found[0]["answer"]["content"] == "refund"
    assert (found[0]["label"], found[0]["provenance"]["redactions"]) == (
        None,
        {"email": 1},
    )
    assert found[-1]["model"]
    if written == 2:
        roles = [turn["role"] for turn in found[1]["messages"]]
        assert roles == ["user", "assistant", "tool"]
    with pytest.raises(InputError, match="could hold labels"):
        imported(tmp_path, str(SAMPLES / sample))
    labelled = [
        {
            **line,
            "label": "refund",
            "label_author": "ann",
        }
        for line in found
    ]
    file.write_bytes(lines(*labelled))
    (suite,) = imported(tmp_path, str(file)).suites
    assert suite.items == written


def test_one_question_with_two_targets_is_refused_with_both_lines_of_the_source(
    tmp_path: Path,
) -> None:
    rows = ["input,target", "Other,x", "What  is it?,refund", "Third,x", "What is it?,billing"]
    file = tmp_path / "own.csv"
    file.write_text("\n".join(rows))

    with pytest.raises(
        InputError, match=r"own\.csv:5: asks the same as \S*own\.csv:3, but has"
    ):
        imported(tmp_path, str(file))


def spend_row(number: int, **changes: object) -> Record:
    asked = {"messages": [{"role": "user", "content": f"Where is parcel {number}?"}]}
    return {
        "request_id": f"c{number}",
        "call_type": "acompletion",
        "startTime": f"2026-11-27T23:0{number}:00+00:00",
        "model": "support",
        "proxy_server_request": asked,
        "response": {"choices": [{"message": {"content": "refund"}, "finish_reason": "stop"}]},
        "status": "success",
        **changes,
    }


def to_label(folder: Path, *records: Record) -> list[Any]:
    (file := folder / "log.jsonl").write_bytes(lines(*records))
    done = imported(folder, str(file))
    assert done.to_label is not None
    return [json.loads(line) for line in done.to_label.file.read_text("utf-8").splitlines()]


def test_logged_requests_that_failed_or_lost_their_answer_stay_in_the_sample(
    tmp_path: Path,
) -> None:
    long_answer = {"choices": [{"message": {"content": "a… (litellm_truncated 9 chars)"}}]}

    found = to_label(
        tmp_path,
        spend_row(1),
        spend_row(2, status="failure", response={}),
        spend_row(3, response=long_answer),
        spend_row(4, response={"choices": []}),
        spend_row(5, response="{}"),
    )

    outcomes = [(line["answer"] is None, line["provenance"]["outcome"]) for line in found]
    assert outcomes == [
        (False, "ok"),
        (True, "failed"),
        (True, "no_answer"),
        (True, "answer_unreadable"),
        (True, "no_answer"),
    ]


def test_logged_requests_are_drawn_by_caller_and_keep_their_conversation(
    tmp_path: Path,
) -> None:
    rows = [spend_row(n, end_user="kim@example.org", session_id=f"s{n}") for n in range(5)]

    found = to_label(tmp_path, *rows)

    assert len(found) == 2
    assert "kim@" not in json.dumps(found)
    provenance = [line["provenance"] for line in found]
    assert len({one["caller"] for one in provenance}) == 1
    assert len({one["conversation"] for one in provenance}) == 2


def test_phoenixs_spans_become_a_file_to_label(tmp_path: Path) -> None:
    span = {
        "context.span_id": "s1",
        "span_kind": "LLM",
        "start_time": "2026-11-20T14:00:00Z",
        "status_code": "OK",
        "attributes.llm.provider": "openai",
        "attributes.llm.model_name": "gpt-5-mini",
        "attributes.llm.input_messages": [
            {"message.role": "user", "message.content": "Where is my parcel?"}
        ],
        "attributes.llm.output_messages": [
            {"message.role": "assistant", "message.content": "On its way."}
        ],
    }

    (found,) = to_label(tmp_path, span, {**span, "span_kind": "CHAIN"})

    assert found["messages"] == [{"role": "user", "content": "Where is my parcel?"}]
    assert (found["answer"]["content"], found["model"]) == ("On its way.", "openai/gpt-5-mini")


def test_a_span_that_failed_stays_in_the_sample_with_its_user(tmp_path: Path) -> None:
    asked = json.dumps([{"role": "user", "content": "Where is my parcel?"}])
    span = {
        "traceId": "1",
        "spanId": "2",
        "status": {"code": 2},
        "attributes": [
            attribute("gen_ai.input.messages", asked),
            attribute("user.id", "kim"),
            attribute("gen_ai.conversation.id", "c1"),
        ],
    }

    (line,) = to_label(tmp_path, {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})

    assert line["provenance"]["outcome"] == "failed"
    assert line["provenance"]["caller"]
    assert line["provenance"]["conversation"]


def attribute(key: str, value: object) -> Record:
    return {"key": key, "value": {"stringValue": value}}


def span_with(*events: Record) -> bytes:
    span = {
        "traceId": "1",
        "spanId": "2",
        "events": events,
        "attributes": [],
    }
    span["attributes"] = [attribute("gen_ai.system", "openai")]
    return lines({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


def event(name: str, **attributes: str) -> Record:
    listed = [attribute(key.replace("__", "."), value) for key, value in attributes.items()]
    return {"name": name, "attributes": listed}


MESSAGES = [{"role": "user", "content": "Where?"}]
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "There."}}]}
ROW = [
    "1",
    "acompletion",
    "2026-11-20 14:00:00",
    json.dumps(MESSAGES),
    json.dumps(ANSWER),
]


@pytest.mark.parametrize(
    "content",
    [
        span_with(
            event("gen_ai.user.message", content="Where?"),
            event(
                "gen_ai.choice",
                message='{"content": "There."}',
                finish_reason="stop",
            ),
        ),
        span_with(
            event("gen_ai.content.prompt", gen_ai__prompt=json.dumps(MESSAGES)),
            event(
                "gen_ai.content.completion",
                gen_ai__completion='[{"content": "There."}]',
            ),
        ),
        "request_id;call_type;startTime;messages;response\n{}\n".format(
            ";".join('"' + cell.replace('"', '""') + '"' for cell in ROW)
        ).encode("utf-16"),
        lines(
            {
                "data": [
                    {
                        "request_id": "1",
                        "call_type": "completion",
                        "startTime": "2026-11-20T14:00:00Z",
                        "proxy_server_request": {"messages": MESSAGES},
                        "response": ANSWER,
                    }
                ],
                "total": 1,
            }
        ),
    ],
)
def test_earlier_forms_of_a_log_give_the_same_request(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(content)

    done = imported(tmp_path, str(file))

    assert done.to_label is not None
    (line,) = map(
        json.loads,
        done.to_label.file.read_text(encoding="utf-8").splitlines(),
    )
    assert (line["messages"], line["answer"]["content"]) == (
        MESSAGES,
        "There.",
    )


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (
            {"resourceSpans": {}},
            "log.json:1: field 'resourceSpans': must be a list",
        ),
        (
            {"resourceSpans": [{"resource": {"attributes": [{"value": {"intValue": "x"}}]}}]},
            "log.json:1: field 'value' of",
        ),
        ({"resourceSpans": []}, "has no request to label"),
        (
            {
                "request_id": "1",
                "call_type": "completion",
                "messages": 1,
                "response": 2,
            },
            "log.json:1: fields 'proxy_server_request', 'response'",
        ),
    ],
)
def test_a_log_that_cannot_be_read_is_named_and_leaves_no_file(
    tmp_path: Path,
    content: Record,
    because: str,
) -> None:
    file = tmp_path / "log.json"
    file.write_bytes(lines(content))

    with pytest.raises(InputError, match=because):
        imported(tmp_path, str(file))
    assert not list(tmp_path.rglob("*to-label*"))


def test_tools_and_tool_answers_of_a_span_stay_a_conversation(tmp_path: Path) -> None:
    parts = [
        {
            "type": "tool_call",
            "id": "c",
            "name": "find",
            "arguments": {"a": 1},
        }
    ]
    turns = [
        {"role": "user", "parts": [{"type": "text", "content": "Where?"}]},
        {"role": "assistant", "parts": parts},
        {
            "role": "tool",
            "parts": [
                {
                    "type": "tool_call_response",
                    "id": "c",
                    "response": "x",
                }
            ],
        },
    ]
    attributes = {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.input.messages": turns,
        "gen_ai.output.messages": [{"role": "assistant", "parts": parts}],
        "gen_ai.tool.definitions": [
            {
                "type": "function",
                "name": "find",
                "parameters": {},
            }
        ],
    }
    listed = [
        {"key": key, "value": {"stringValue": json.dumps(value)}}
        for key, value in attributes.items()
    ]
    span = {
        "traceId": "1",
        "spanId": "2",
        "attributes": listed,
    }
    file = tmp_path / "spans.json"
    file.write_bytes(lines({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))

    done = imported(tmp_path, str(file))

    assert done.to_label is not None
    (line,) = map(
        json.loads,
        done.to_label.file.read_text(encoding="utf-8").splitlines(),
    )
    call = {"id": "c", "type": "function"}
    call["function"] = {"name": "find", "arguments": '{"a": 1}'}  # type: ignore[assignment]
    assert [turn["role"] for turn in line["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert line["messages"][2]["tool_calls"] == line["answer"]["tool_calls"] == [call]
    assert line["messages"][3] == {
        "role": "tool",
        "tool_call_id": "c",
        "content": "x",
    }
    assert line["tools"][0]["function"]["name"] == "find"


def test_metadata_and_tags_become_slices_and_no_bad_import_leaves_a_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(
        lines(
            {
                "input": "a",
                "target": "x",
                "tags": ["vip", "de"],
                "metadata": {"topic": "t"},
            },
            {"input": "b", "target": "y"},
        )
    )
    installation = open_installation(configured(tmp_path))
    for slices, because in (
        (("team",), "--slice can name tags, topic"),
        (("topic",), ""),
    ):
        wished = SuiteSettings("own", slices=(*slices, "tags"))
        if because:
            with pytest.raises(InputError, match=because):
                import_source(installation, ANA, str(file), wished, SourceChoice())
            assert not list(tmp_path.rglob("own*"))
    done = import_source(installation, ANA, str(file), wished, SourceChoice())

    items = map(
        json.loads,
        done.suites[0].data.read_text(encoding="utf-8").splitlines(),
    )
    values = [(item["metadata"]["topic"], item["metadata"]["tags"]) for item in items]
    assert values == [("t", "vip, de"), ("none", "none")]
    assert done.suites[0].settings["slices"] == ["topic", "tags"]


@pytest.mark.parametrize(
    ("address", "because"),
    [
        (
            "langfuse://mails",
            "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY",
        ),
        ("braintrust://mails", "write braintrust://PROJECT/DATASET"),
        ("http://x", "no file, and no address"),
        ("missing.jsonl", "cannot be read: No such file"),
        (
            str(SAMPLES / "../exports/openai_evals_items.json"),
            "has items of an OpenAI eval without its graders",
        ),
    ],
)
def test_an_address_that_cannot_be_read_says_what_it_lacks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    because: str,
) -> None:
    monkeypatch.delenv("LANGFUSE_PUBLIC_KEY", raising=False)
    with pytest.raises(InputError, match=because):
        imported(tmp_path, address)
