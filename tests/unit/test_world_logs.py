"""Published logs of requests are read with their right values: `tests/world/logs`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from evals.suites.logs.log_formats import LOG_READERS, find_kind
from evals.suites.logs.log_stream import stream_source
from evals.suites.request_log import NO_DATE, LoggedRequest, RequestLog

FOLDER: Final = Path(__file__).parent.parent / "world/logs"
ENTRIES: Final = [
    pytest.param(file.stem, entry, id=f"{file.stem}-{entry['name']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for entry in yaml.safe_load(file.read_text(encoding="utf-8"))
]

pytestmark = pytest.mark.req("D8")


def describe(request: LoggedRequest) -> Mapping[str, Any]:
    return {
        "model": request.served_model,
        "input": request.input_tokens,
        "output": request.output_tokens,
        "cost": pytest.approx(request.cost_usd) if request.cost_usd is not None else None,
        "seconds": pytest.approx(request.duration_s)
        if request.duration_s is not None
        else None,
        "error": request.error,
        "at": "unknown" if request.at == NO_DATE else request.at.isoformat(),
        "caller": request.caller,
        "conversation": request.conversation,
        "trace": request.trace,
        "provider": request.provider,
        "asked": bool(request.body),
        "answered": bool(request.answer),
    }


@pytest.mark.parametrize(("tool", "entry"), ENTRIES)
def test_a_published_log_gives_what_it_says(
    tool: str, entry: Mapping[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "log.json"
    file.write_text(entry["text"], encoding="utf-8")
    logs: list[RequestLog] = []
    for part in stream_source(file):
        assert find_kind(part) == tool
        logs.append(LOG_READERS[tool](part))

    calls = [call for log in logs for call in (*log.requests, *log.without_content)]
    calls.sort(key=lambda call: int(call.place.rpartition(":")[2]))
    right = entry["right"]
    assert len(calls) == len(right["calls"])
    for call, wanted in zip(calls, right["calls"], strict=True):
        found = describe(call)
        assert {name: found[name] for name in wanted} == wanted
    others = sum(log.lost.total() - len(log.without_content) for log in logs)
    assert others == right.get("other", 0)
    assert entry["source"]


def test_each_format_has_ten_published_examples() -> None:
    counts = {file.stem: 0 for file in FOLDER.glob("*.yaml")}
    for parameter in ENTRIES:
        counts[str(parameter.values[0])] += 1

    assert counts.keys() == {
        "braintrust",
        "langfuse",
        "langsmith",
        "litellm",
        "otel",
        "phoenix",
    }
    assert min(counts.values()) >= 10
