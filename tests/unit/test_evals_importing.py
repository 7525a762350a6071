import json
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evals.suites.suite import describe_sample, load_suite
from evals.suites.suite_import import (
    ImportedSuite,
    import_suites,
    read_labelled,
)
from harness.evals.settings import SuiteSettings
from harness.frame.errors import Conflict, InputError, SwapproofError

pytestmark = pytest.mark.req("F9", "D8")

NOW = datetime(2026, 11, 20, 15, tzinfo=UTC)


def line(number: int, **changed: Any) -> dict[str, Any]:
    provenance = {
        "route": "triage",
        "at": f"2026-11-0{number}T08:00:00+00:00",
        "data_class": "personal",
        "share_bps": 100,
        "rules_sha256": "f" * 64,
    }
    return {
        "id": f"cap_{number}",
        "messages": [
            {"role": "system", "content": "Route it."},
            {
                "role": "user",
                "content": [{"type": "text", "text": f"Mail {number}"}],
            },
        ],
        "answer": {"role": "assistant", "content": "billing"},
        "model": "sim/base",
        "tags": ["route:triage"],
        "label": "billing" if number % 2 else "refund",
        "label_author": "ann",
        "labelled_at": "2026-11-19T09:00:00Z",
        "provenance": provenance,
        **changed,
    }


def imported(
    folder: Path,
    *lines: Any,
    replace_: bool = False,
    **wished: Any,
) -> ImportedSuite:
    file = folder / "labelled.jsonl"
    file.write_text("\n".join(json.dumps(item) for item in lines), encoding="utf-8")
    settings = SuiteSettings("production", **{"scorer": "label", **wished})
    found = [read_labelled(file, settings)]
    (done,) = import_suites(
        found,
        base=folder,
        actor="ann",
        now=NOW,
        replace_=replace_,
    )
    return done


def test_a_labelled_file_is_a_suite_whose_manifest_says_where_it_is_from(
    tmp_path: Path,
) -> None:
    done = imported(tmp_path, line(1), line(2), line(3, label=None, label_author=""))

    assert (done.items, done.unlabelled, done.left_out) == (2, 1, 0)
    assert done.settings == {
        "path": "suites/production.jsonl",
        "scorer": "label",
        "data_class": "personal",
    }
    (entry,) = tomllib.loads(done.manifest.read_text())["dataset"]
    assert entry == {
        "name": "production",
        "file": "production.jsonl",
        "items": 3,
        "sha256": done.sha256,
        "origin": "captured from production",
        "routes": ["triage"],
        "captured_from": "2026-11-01T08:00:00+00:00",
        "captured_until": "2026-11-03T08:00:00+00:00",
        "share_bps": [100],
        "rules_sha256": ["f" * 64],
        "data_class": "personal",
        "label_authors": ["ann"],
        "labelled_from": "2026-11-19T09:00:00Z",
        "labelled_until": "2026-11-19T09:00:00Z",
        "imported_at": "2026-11-20T15:00:00+00:00",
        "imported_by": "ann",
        "without_label": 1,
        "of_frequent_callers": 0,
        "unscorable": 0,
    }
    item = json.loads(done.data.read_text().splitlines()[0])
    assert item["metadata"]["provenance"]["label_author"] == "ann"
    assert item["metadata"]["production"]["model"] == "sim/base"


def test_at_most_two_requests_of_a_caller_become_items(tmp_path: Path) -> None:
    lines = [line(n) for n in range(1, 6)]
    for one in lines[:4]:
        one["provenance"] = {**one["provenance"], "caller": "a" * 32}

    done = imported(tmp_path, *lines)

    (entry,) = tomllib.loads(done.manifest.read_text())["dataset"]
    assert (done.items, entry["of_frequent_callers"]) == (3, 2)


def test_deleted_lines_of_an_export_are_counted(tmp_path: Path) -> None:
    lines = [line(1), line(2)]
    for one in lines:
        one["provenance"] = {**one["provenance"], "sample": {"drawn": 9, "written": 5}}

    done = imported(tmp_path, *lines)

    told = describe_sample(SuiteSettings("production", path=done.data, scorer="label"))
    assert told == (
        "Its 2 items, from 9 sampled requests, omit: 3 whose lines were deleted from the "
        "export."
    )


def test_deletions_from_one_export_do_not_hide_behind_another(tmp_path: Path) -> None:
    lines = [line(n) for n in range(1, 5)]
    for number, one in enumerate(lines):
        sample = {"drawn": 9, "written": 4, "exported_at": f"2026-11-2{number % 2}T12:00:00Z"}
        one["provenance"] = {**one["provenance"], "sample": sample}

    done = imported(tmp_path, *lines)

    (entry,) = tomllib.loads(done.manifest.read_text())["dataset"]
    assert (entry["deleted"], entry["drawn"]) == (4, 18)


def test_a_label_that_repeats_a_free_text_of_the_model_counts_for_no_exact_scorer(
    tmp_path: Path,
) -> None:
    text = "Your parcel is late, and we are sorry for it."
    answer = {"role": "assistant", "content": text}
    approved = line(1, answer=answer, label=text)

    done = imported(tmp_path, approved, line(2), scorer="exact")

    assert (done.items, done.unlabelled) == (1, 1)
    item = json.loads(done.data.read_text().splitlines()[0])
    assert item["target"] is None
    assert item["metadata"]["unlabelled"] == "an approved free text is no exact target"


def test_a_conversation_is_asked_as_it_was_with_its_tools(tmp_path: Path) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "find", "arguments": "{}"},
    }
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is it?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call],
        },
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": "Oslo",
        },
    ]
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    done = imported(tmp_path, line(1, messages=messages, tools=tools), line(2))
    settings = SuiteSettings("production", path=done.data, scorer="label")
    suite = load_suite(replace(settings, data_class="personal"))
    from evals.runner.inspect_tasks import DataSuite  # noqa: PLC0415 - Inspect loads for two seconds

    assert suite.prompt("cap_1") == "Where is it?"
    assert list(suite.context("cap_1")) == messages
    assert suite.fields("cap_1") == {"tools": tools}
    assert DataSuite(suite).prompt("cap_2") == "Mail 2"


def test_captured_data_keep_their_class_whoever_edits_the_configuration(tmp_path: Path) -> None:
    done = imported(tmp_path, line(1))
    settings = SuiteSettings("production", path=done.data, scorer="label")

    for other in ("", "open"):
        with pytest.raises(InputError, match="captured as personal data: set `data_class"):
            load_suite(replace(settings, data_class=other))


@pytest.mark.parametrize(
    ("lines", "because"),
    [
        ([line(1), {"label": "x"}], "labelled.jsonl:2: field 'id'"),
        (
            [line(1), line(1)],
            "labelled.jsonl:2: field 'id': line 1 has the same id",
        ),
        ([line(1, messages=[])], "labelled.jsonl:1: field 'messages'"),
        (
            [line(1, messages=[{"role": "cat", "content": "x"}])],
            "message 0: must be an object",
        ),
        (
            [line(1, messages=[{"role": "user", "content": 7}])],
            "message 0: content must be",
        ),
        (
            [line(1, messages=[{"role": "user", "content": " "}])],
            "the messages have no text",
        ),
        (
            [line(1, messages=[{"role": "assistant", "content": "x"}])],
            "the last message is the model's",
        ),
        ([line(1, tools=[{}])], "labelled.jsonl:1: tools must be"),
        ([line(1, tags="x")], "labelled.jsonl:1: field 'tags'"),
        (
            [line(1, label_author="")],
            "labelled.jsonl:1: field 'label_author'",
        ),
        ([line(1, labelled_at="today")], "'today' is not a time"),
        ([line(1, provenance=None)], "labelled.jsonl:1: field 'provenance'"),
        ([line(1, provenance={"route": 1})], "field 'provenance.route'"),
        ([line(1, label=None)], "no line has a label"),
        (
            [
                line(1),
                line(2, provenance={**line(2)["provenance"], "data_class": ""}),
            ],
            "several",
        ),
        ([[1]], "labelled.jsonl:1: each line must be one JSON object"),
        ([line(1, label=7)], "cap_1"),
    ],
)
def test_a_fault_is_named_by_its_place_and_nothing_is_left_behind(
    lines: list[Any],
    because: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=because.replace("[", r"\[")):
        imported(tmp_path, *lines)

    assert not list(tmp_path.rglob("production*"))
    assert not list(tmp_path.rglob("manifest*"))


def test_a_suite_is_replaced_only_when_that_is_said_and_restored_when_refused(
    tmp_path: Path,
) -> None:
    first = imported(tmp_path, line(1), line(2))
    before = first.data.read_bytes()

    with pytest.raises(Conflict, match="--replace"):
        imported(tmp_path, line(3), line(4))
    with pytest.raises(SwapproofError):
        imported(
            tmp_path,
            line(3),
            line(4),
            replace_=True,
            scorer="no-such",
        )
    assert first.data.read_bytes() == before

    second = imported(tmp_path, line(3), line(4), replace_=True)
    (entry,) = tomllib.loads(second.manifest.read_text())["dataset"]
    assert entry["sha256"] == second.sha256 != first.sha256
