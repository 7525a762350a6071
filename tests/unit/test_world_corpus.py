"""What providers and clients publish, in `tests/world`, as the product reads it.

An entry with `now` is wrong today. A change that mends it deletes `now`.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from harness.routing.reliability.rate_headers import is_used_up
from harness.routing.reliability.request_repair import RepairReach, find_repair
from router.frame.failure import error_object
from tests.world import answer_corpus, refusal_corpus, request_corpus
from tests.world.refusal_corpus import Refusal

pytestmark = pytest.mark.req("A5", "B3", "B7", "B11")
OTHER_PROVIDERS: Final = frozenset(
    {
        "mistral",
        "groq",
        "deepseek",
        "xai",
        "cohere",
        "together",
        "fireworks",
        "moonshot",
        "qwen",
        "zai",
        "sglang",
        "llamacpp",
        "ollama",
        "lmstudio",
        "litellm",
        "portkey",
        "cloudflare",
    }
)
CLIENTS: Final = (
    "Claude Code",
    "Codex",
    "opencode",
    "Cursor",
    "Cline",
    "Continue",
    "Zed",
    "the SDKs",
    "Vercel's AI SDK",
    "LangChain",
    "LlamaIndex",
    "pydantic-ai",
    "n8n",
    "LibreChat",
    "Open WebUI",
)
TELLS: Final = {
    RepairReach.OUTRIGHT: "outright",
    RepairReach.COMBINATION: "combination",
    RepairReach.EXACT: "combination",
}


REFUSALS: Final = (*refusal_corpus.FILES, *refusal_corpus.FORMS)


@pytest.mark.parametrize("file", REFUSALS, ids=lambda file: f"{file.parent.stem}-{file.stem}")
def test_published_refusals_are_read_as_their_entries_say(file: Path) -> None:
    refusals = list(refusal_corpus.read_corpus([file]))

    found = {r.name: (dict(r.wrong()), r.rule(), _used_up(r)) for r in refusals}

    assert found == {
        r.name: (r.entry.get("now", {}), r.entry["rule"], r.entry.get("used_up", False))
        for r in refusals
    }


def _used_up(refusal: Refusal) -> bool:
    headers = refusal.entry.get("headers", {})
    return is_used_up({name: str(value) for name, value in headers.items()})


def test_a_published_refusal_of_a_field_is_repaired_as_its_entry_says() -> None:
    refusals = [r for r in refusal_corpus.read_corpus(REFUSALS) if "then" in r.entry]
    telling = [r for r in refusals if "tells" in r.entry]

    assert {r.name: r.second_try() for r in refusals} == {
        r.name: r.entry.get("repair_now", r.entry["then"]) for r in refusals
    }
    assert {r.name: _tells(r) for r in telling} == {r.name: r.entry["tells"] for r in telling}


def _tells(refusal: Refusal) -> str:
    repair = find_repair(error_object(refusal.body) or {}, refusal.entry["sent"])
    return TELLS[repair.reach] if repair else "unrepaired"


@pytest.mark.parametrize("file", answer_corpus.FILES, ids=lambda file: str(file.stem))
def test_published_answers_are_read_as_their_entries_say(file: Path) -> None:
    answers = list(answer_corpus.read_corpus([file]))

    assert {a.name: dict(a.wrong()) for a in answers} == {
        a.name: a.entry.get("now", {}) for a in answers
    }


def test_published_requests_of_clients_are_sent_as_their_entries_say() -> None:
    sent = request_corpus.read_all_sent()

    found = {a.name: dict(a.wrong(sent[a.name])) for a in request_corpus.read_corpus()}

    assert found == {a.name: a.entry.get("now", {}) for a in request_corpus.read_corpus()}


def test_the_corpus_has_enough_of_each_provider_and_client() -> None:
    refusals = Counter(r.provider for r in refusal_corpus.read_corpus())
    clients = Counter(r.client for r in request_corpus.read_corpus())
    many = ("openai", "azure", "anthropic", "bedrock", "openrouter", "vllm")

    assert all(refusals[provider] >= 15 for provider in many), refusals
    assert refusals["gemini"] + refusals["vertex"] >= 15
    assert refusals.keys() >= OTHER_PROVIDERS
    assert refusals.total() >= 300
    assert sum(1 for _ in answer_corpus.read_corpus()) >= 120
    assert clients.total() >= 60
    assert set(CLIENTS) <= clients.keys()


def test_every_entry_counts_once_and_has_its_page() -> None:
    refusals = list(refusal_corpus.read_corpus())
    answers = list(answer_corpus.read_corpus())
    requests = list(request_corpus.read_corpus())
    entries = [r.entry for r in refusals] + [a.entry for a in answers]
    entries += [request.entry for request in requests]
    names = [("refusal", r.name) for r in refusals]
    names += [("answer", a.name) for a in answers] + [("request", r.name) for r in requests]

    assert all(entry["source"].startswith("https://") for entry in entries)
    assert all("now" in refusal.entry for refusal in refusals if "stays" in refusal.entry)
    assert max(Counter(names).values()) == 1
    assert max(Counter((r.provider, r.body) for r in refusals).values()) == 1
    assert max(Counter(_given(answer.entry) for answer in answers).values()) == 1


def _given(entry: Mapping[str, object]) -> str:
    return json.dumps([entry.get("endpoint"), entry.get("body"), entry.get("events")])
