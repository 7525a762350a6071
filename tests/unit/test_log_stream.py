"""Logs of requests, as a stream in parts and through every reader."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.suites.logs import log_stream
from evals.suites.logs.log_formats import LOG_READERS
from evals.suites.logs.log_stream import stream_source
from evals.suites.logs.trace_forms import TRACE_FORMS
from evals.suites.request_log import RequestLog
from evals.suites.source_records import SourceFile, SourceRecord
from harness.app.attach.traffic_survey import TrafficSurvey
from harness.frame.errors import InputError
from tests.unit.test_attach import row, write_lines

pytestmark = pytest.mark.req("D8")

PLACES = sorted(
    {
        place.partition(".")[0]
        for form in TRACE_FORMS.values()
        for places in (
            form.kind,
            form.start,
            form.question,
            form.answer,
            form.usage,
            form.model,
        )
        for place in places
    }
    | {
        "call_type",
        "startTime",
        "proxy_server_request",
        "response",
        "resourceSpans",
        "provenance",
    }
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["llm", "LLM"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "type", "spans"]), inner, max_size=2
        )
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(LOG_READERS)),
    fields=st.dictionaries(st.sampled_from(PLACES), VALUES, max_size=6),
)
def test_a_reader_gives_requests_or_says_where_a_record_is_wrong(
    kind: str, fields: Mapping[str, Any]
) -> None:
    part = SourceFile(Path("log"), "jsonl", [SourceRecord("log:1", fields)], {})
    message = "log:1: "
    log = RequestLog((), {})
    try:
        log = LOG_READERS[kind](part)
    except InputError as error:
        message = str(error)
    assert message.startswith("log:1: ")
    survey = TrafficSurvey()
    for request in (*log.requests, *log.without_content):
        survey.add(request)
    assert survey.requests + survey.repeated == len(log.requests) + len(log.without_content)


def sum_up(parts: Iterable[Any]) -> Mapping[str, object]:
    survey = TrafficSurvey()
    for part in parts:
        for request in LOG_READERS["litellm"](part).requests:
            survey.add(request)
    (model,) = survey.ranked
    return {
        "requests": survey.requests,
        "cost": model.cost_usd,
        "median": model.find_duration(0.5),
        "errors": model.errors,
        "callers": survey.callers,
    }


@settings(max_examples=25, deadline=None)
@given(
    part_bytes=st.integers(1, 5_000),
    number=st.integers(2, 30),
    form=st.sampled_from(["jsonl", "csv"]),
)
def test_a_stream_in_parts_gives_the_sums_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, part_bytes: int, number: int, form: str
) -> None:
    rows = [row(n, status="failure" if n % 5 == 0 else "success") for n in range(number)]
    file = tmp_path_factory.mktemp("log") / f"log.{form}"
    WRITERS[form](file, rows)
    whole = sum_up(stream_source(file))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_stream, "PART_BYTES", part_bytes)
        parts = list(stream_source(file))
        assert sum_up(parts) == whole
        # A part ends with the record that fills it, so no part grows with the file.
        assert all(
            sum(len(json.dumps(dict(record.fields))) for record in part.records[:-1])
            < part_bytes * 2 + 1_000
            for part in parts
        )


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    names = list(rows[0])
    cells = [
        [value if isinstance(value, str) else json.dumps(value) for value in one.values()]
        for one in rows
    ]
    lines = [names, *cells]
    quoted = [
        ",".join('"{}"'.format(cell.replace('"', '""')) for cell in line) for line in lines
    ]
    path.write_text("\n".join(quoted), encoding="utf-8")
    return path


WRITERS: Mapping[str, Callable[[Path, Sequence[Mapping[str, Any]]], Path]] = {
    "jsonl": write_lines,
    "csv": write_table,
}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"x" * 2_000, "neither JSON nor the header of a table"),
        (b"a\0,b\n1,2\n", "neither JSON nor the header of a table"),
        (b"a,b\n", "has a header and no row"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, sentence: str
) -> None:
    monkeypatch.setattr(log_stream, "_MAX_LINE_BYTES", 1_000)
    file = tmp_path / "log.csv"
    file.write_bytes(content)

    with pytest.raises(InputError, match=sentence):
        list(log_stream.stream_source(file))
