"""Data sets of hosted tools, fetched by their real SDKs from a small double of each API.

The SDKs are the extra `hosted`, which the development environment lacks.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.app.installation import open_installation
from harness.app.suite_import import SourceChoice, SuiteImport, import_source
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from tests.support.browser.dashboard_data import ANA, configured
from tests.support.site.http_thread import Exchange, serving

pytestmark = [pytest.mark.req("F6"), pytest.mark.timeout(120)]

AT = "2026-11-20T14:00:00.000Z"
UUID = "00000000-0000-4000-8000-00000000000{}"
Query = Mapping[str, list[str]]
# Answers a method and path by status and JSON; query, body: what the SDK sent.
Answer = Callable[[str, str, Query, Any], Any]


@contextmanager
def doubled(answer: Answer, authorized: Callable[[Mapping[str, str]], bool]) -> Iterator[str]:
    class Api(Exchange):
        def exchange(self) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.received_body() or b"null")
            found = answer(self.command, parts.path, parse_qs(parts.query), body)
            status = 404 if found is None else 200
            if not authorized(self.received_headers()):
                status = 401
                found = None
            data = json.dumps({"message": "no"} if found is None else found).encode()
            self.answer(status, data, {"content-type": "application/json"})

        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            self.exchange()

    with serving(Api) as port:
        yield f"http://127.0.0.1:{port}"


def langfuse(
    method: str,
    path: str,
    query: Query,
    _: Any,
) -> Any:
    item = {
        "status": "ACTIVE",
        "metadata": {"topic": "mail"},
        "datasetId": "d",
    }
    item |= {
        "datasetName": "mails/live",
        "createdAt": AT,
        "updatedAt": AT,
    }
    item |= {"mediaReferences": []}
    items = [
        {
            **item,
            "id": "1",
            "input": {"q": "Broken"},
            "expectedOutput": "refund",
        },
        {
            **item,
            "id": "2",
            "input": "Where?",
            "expectedOutput": None,
            "sourceTraceId": "t",
        },
        {
            **item,
            "id": "3",
            "input": "Old",
            "expectedOutput": "x",
            "status": "ARCHIVED",
        },
    ]
    if (method, path) == ("GET", "/api/public/v2/datasets/mails%2Flive"):
        named = {
            "id": "d",
            "name": "mails/live",
            "projectId": "p",
            "metadata": None,
        }
        return {
            **named,
            "description": None,
            "createdAt": AT,
            "updatedAt": AT,
        }
    if path == "/api/public/dataset-items" and query["datasetName"] == ["mails/live"]:
        page = int(query["page"][0])  # two items on the first page
        shown = items[:2] if page == 1 else items[2:]
        return {
            "data": shown,
            "meta": {
                "page": page,
                "limit": 2,
                "totalItems": 3,
                "totalPages": 2,
            },
        }
    if path == "/api/public/v3/scores" and query["traceId"] == ["t"]:
        assert query["source"] == ["ANNOTATION"]
        score = {
            "id": "s",
            "projectId": "p",
            "name": "team",
            "source": "ANNOTATION",
        }
        score |= {
            "dataType": "CATEGORICAL",
            "value": "delivery",
            "environment": "default",
        }
        score |= {
            "timestamp": AT,
            "createdAt": AT,
            "updatedAt": AT,
        }
        return {"data": [score], "meta": {"limit": 50}}
    return None


def langsmith(
    _: str,
    path: str,
    query: Query,
    __: Any,
) -> Any:
    example: dict[str, Any] = {
        "dataset_id": UUID.format(1),
        "created_at": AT,
    }
    example |= {"modified_at": AT, "metadata": {"topic": "mail"}}
    right = {"id": UUID.format(2), "outputs": {"a": "refund"}}
    run = UUID.format(4)
    examples = [
        {
            **example,
            **right,
            "inputs": {"q": "Broken"},
        },
        {
            **example,
            "id": UUID.format(3),
            "inputs": {"q": "Where?"},
            "source_run_id": run,
        },
    ]
    if path == "/info":
        return {"version": "0.12.0"}
    if path == "/datasets" and query["name"] == ["mails/live"]:
        return [
            {
                "id": UUID.format(1),
                "name": "mails/live",
                "created_at": AT,
            }
        ]
    if path == "/examples" and query["dataset"] == [UUID.format(1)]:
        return examples if query["offset"] == ["0"] else []
    if path == "/feedback" and query["run"] == [run]:
        feedback: dict[str, Any] = {
            "id": UUID.format(5),
            "run_id": run,
            "key": "right",
        }
        feedback |= {
            "trace_id": run,
            "created_at": AT,
            "modified_at": AT,
            "score": 0,
        }
        feedback |= {
            "correction": {"a": "delivery"},
            "feedback_source": {"type": "app"},
        }
        return [feedback]
    return None


def braintrust(base: list[str]) -> Answer:
    def answer(
        method: str,
        path: str,
        query: Query,
        body: Any,
    ) -> Any:
        event: dict[str, Any] = {
            "_xact_id": "1",
            "dataset_id": UUID.format(1),
            "created": AT,
        }
        event |= {
            "root_span_id": "r",
            "span_id": "r",
            "metadata": {"topic": "mail"},
        }
        if (method, path) == ("POST", "/api/apikey/login"):
            org = {
                "id": "o",
                "name": "org",
                "api_url": base[0],
                "is_universal_api": True,
            }
            return {"org_info": [org]}
        if (method, path) == ("GET", "/v1/dataset"):
            wanted = (query["project_name"], query["dataset_name"])
            named = {
                "id": UUID.format(1),
                "project_id": "p",
                "name": "mails/live",
            }
            return {"objects": [named] if wanted == (["bot"], ["mails/live"]) else []}
        if (method, path) == ("POST", f"/v1/dataset/{UUID.format(1)}/fetch"):
            if body.get("cursor"):
                return {
                    "events": [
                        {
                            **event,
                            "id": "2",
                            "input": {"q": "Where?"},
                            "expected": "delivery",
                        }
                    ]
                }
            return {
                "events": [
                    {
                        **event,
                        "id": "1",
                        "input": "Broken",
                        "expected": "refund",
                    }
                ],
                "cursor": "next",
            }
        return None

    return answer


def fetched(folder: Path, address: str) -> SuiteImport:
    installation = open_installation(configured(folder))
    wished = SuiteSettings("own", slices=("topic",))
    return import_source(installation, ANA, address, wished, SourceChoice())


def targets(done: SuiteImport) -> list[object]:
    items = map(
        json.loads,
        done.suites[0].data.read_text(encoding="utf-8").splitlines(),
    )
    return [item["target"] for item in items]


def test_a_langfuse_data_set_comes_with_the_scores_of_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langfuse", reason="needs the extra `hosted`")
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk")
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk")
    basic = "Basic " + base64.b64encode(b"pk:sk").decode()
    with doubled(langfuse, lambda headers: headers.get("authorization") == basic) as base:
        monkeypatch.setenv("LANGFUSE_BASE_URL", base)
        assert targets(fetched(tmp_path, "langfuse://mails/live")) == [
            "refund",
            "delivery",
        ]
        with pytest.raises(InputError, match="langfuse did not give the data set"):
            fetched(tmp_path, "langfuse://typo")


def test_a_langsmith_data_set_comes_with_the_corrections_of_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langsmith", reason="needs the extra `hosted`")
    monkeypatch.setenv("LANGSMITH_API_KEY", "key")
    with doubled(langsmith, lambda headers: headers.get("x-api-key") == "key") as base:
        monkeypatch.setenv("LANGSMITH_ENDPOINT", base)
        done = fetched(tmp_path, "langsmith://mails%2Flive")
        assert targets(done) == [{"a": "refund"}, {"a": "delivery"}]
        with pytest.raises(InputError, match="langsmith did not give the data set"):
            fetched(tmp_path, "langsmith://typo")


def test_a_braintrust_data_set_is_read_and_never_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("braintrust", reason="needs the extra `hosted`")
    monkeypatch.setenv("BRAINTRUST_API_KEY", "key")
    base: list[str] = []
    bearer = "Bearer key"
    with doubled(braintrust(base), lambda sent: sent.get("authorization") == bearer) as url:
        base.append(url)
        monkeypatch.setenv("BRAINTRUST_APP_URL", url)
        done = fetched(tmp_path, "braintrust://bot/mails%2Flive")
        assert targets(done) == ["refund", "delivery"]
        with pytest.raises(InputError, match="project 'bot' has no data set 'typo'"):
            fetched(tmp_path, "braintrust://bot/typo")
