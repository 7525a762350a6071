"""The page *From OpenAI Evals*: its commands, against a server with the published form."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.site.documented_commands import DocumentedCommands

pytestmark = pytest.mark.req("G1", "F2")

ITEMS: Final = 120  # more than a page
EVAL: Final = "eval_abc123"
MODELS: Final = {"evalrun_old": "old-model", "evalrun_new": "new-model"}
CHECK: Final = "String check-2eaf2d8d-d649-4335-8148-9535a7ca73c2"
GRADERS: Final = [
    {
        "id": CHECK,
        "type": "string_check",
        "name": "String check",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.correct_label }}",
        "operation": "eq",
    },
    {
        "type": "label_model",
        "name": "polite",
        "model": "o3",
        "input": [{"role": "user", "content": "Is it polite? {{sample.output_text}}"}],
        "labels": ["polite", "rude"],
        "passing_labels": ["polite"],
    },
    {"type": "python", "name": "code", "source": "def grade(sample, item): return 1"},
]
TEMPLATE: Final = [
    {"role": "developer", "type": "message", "content": "Label the ticket."},
    {
        "role": "user",
        "type": "message",
        "content": {"type": "input_text", "text": "{{ item.ticket_text }}"},
    },
]


def run_of(id_: str) -> dict[str, Any]:
    return {
        "object": "eval.run",
        "id": id_,
        "eval_id": EVAL,
        "status": "completed",
        "model": MODELS[id_],
        "name": MODELS[id_],
        "created_at": 1743092069 + list(MODELS).index(id_),
        "result_counts": {"total": ITEMS, "errored": 0, "failed": 0, "passed": ITEMS},
        "data_source": {
            "type": "completions",
            "source": {"type": "file_id", "id": "file-abc123"},
            "input_messages": {"type": "template", "template": TEMPLATE},
            "model": MODELS[id_],
        },
        "error": None,
        "metadata": {},
    }


def output_item(run: str, number: int) -> dict[str, Any]:
    passed = run == "evalrun_new" or number % 3 > 0
    asked = [
        {"role": "developer", "content": "Label the ticket.", "tool_calls": None},
        {"role": "user", "content": f"Ticket {number}", "tool_calls": None},
    ]
    return {
        "object": "eval.run.output_item",
        "id": f"outputitem_{run}_{number}",
        "run_id": run,
        "eval_id": EVAL,
        "created_at": 1743092076,
        "status": "pass" if passed else "fail",
        "datasource_item_id": number,
        "datasource_item": {"ticket_text": f"Ticket {number}", "correct_label": "Hardware"},
        "results": [{"name": CHECK, "sample": None, "passed": passed, "score": float(passed)}],
        "sample": {
            "input": asked,
            "output": [{"role": "assistant", "content": "Hardware" if passed else "Other"}],
            "finish_reason": "stop",
            "model": MODELS[run],
            "usage": {
                "total_tokens": 9,
                "completion_tokens": 2,
                "prompt_tokens": 7,
                "cached_tokens": 0,
            },
            "error": None,
            "temperature": 1.0,
            "max_completion_tokens": 2048,
            "top_p": 1.0,
            "seed": 42,
        },
    }


def answer(path: str, query: dict[str, list[str]]) -> dict[str, Any]:
    """The answer to a request of the Evals API; lists in pages."""
    match path.strip("/").split("/")[2:]:
        case []:
            return {
                "object": "eval",
                "id": EVAL,
                "name": "IT tickets",
                "created_at": 1739314509,
                "data_source_config": {"type": "custom", "schema": {"type": "object"}},
                "testing_criteria": GRADERS,
                "metadata": {},
            }
        case ["runs"]:
            rows = [run_of(id_) for id_ in MODELS]
        case ["runs", run]:
            return run_of(run)
        case ["runs", run, "output_items"]:
            rows = [output_item(run, number) for number in range(ITEMS)]
        case other:
            raise AssertionError(other)
    after = query.get("after", [""])[0]
    ids = [row["id"] for row in rows]
    start = ids.index(after) + 1 if after else 0
    page = rows[start : start + int(query.get("limit", ["20"])[0])]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"],
        "last_id": page[-1]["id"],
        "has_more": page[-1] is not rows[-1],
    }


class Evals(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        body = json.dumps(answer(url.path, parse_qs(url.query))).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class
        pass


@pytest.fixture
def evals_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Evals)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.timeout(300)
def test_an_eval_is_exported_imported_and_its_runs_are_compared(
    evals_url: str, tmp_path: Path
) -> None:
    page = DocumentedCommands(
        "how-to/from-openai-evals.md",
        tmp_path,
        before="swapproof init",
        changes={"https://YOUR-RESOURCE.openai.azure.com/openai/v1": evals_url},
    )

    said = page.run(OPENAI_API_KEY="sk-test")

    export = json.loads((tmp_path / f"{EVAL}.json").read_text("utf-8"))
    assert [len(run["output_items"]) for run in export["runs"]] == [ITEMS, ITEMS]
    suites = {
        name: [
            json.loads(line)
            for line in (tmp_path / f"suites/{name}.jsonl").read_text("utf-8").splitlines()
        ]
        for name in ("labels", "labels-again")
    }
    assert {name: len(items) for name, items in suites.items()} == {
        "labels": ITEMS,
        "labels-again": 100,  # the one page, and the report says so
    }
    assert "`has_more` is true" in said
    assert "the files have 100 of 120 output items" in said
    item = suites["labels"][0]
    assert item["metadata"]["messages"] == [
        {"role": "developer", "content": "Label the ticket."},
        {"role": "user", "content": "Ticket 0"},
    ]
    checks = [check["type"] for check in item["metadata"]["assert"]]
    assert checks == ["equals", "llm-rubric"]
    assert "is your code, which Swapproof does not run" in said
    assert "points better than old-model: that shows that it is better" in said
