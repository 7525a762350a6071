import hashlib
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evals.suites.suite import load_suite
from harness.domain.settings import SuiteSettings

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
SUITES = {
    "arithmetic": "numeric",
    "extraction": "json_fields",
    "tickets": "label",
    "instructions": "instructions",
}
pytestmark = pytest.mark.req("A7", "F6")
each_suite = pytest.mark.parametrize("suite", SUITES)


@cache
def items(suite: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{suite}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def manifest() -> dict[str, dict[str, Any]]:
    text = (FOLDER / "manifest.toml").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in tomllib.loads(text)["dataset"]}


@each_suite
def test_the_manifest_states_hash_count_licence_and_origin_of_each_file(suite: str) -> None:
    entry = manifest()[suite]
    content = (FOLDER / entry["file"]).read_bytes()

    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["items"] == content.count(b"\n") == len(items(suite)) >= 400
    assert entry["licence"] == "CC0-1.0"
    assert entry["version"] == "1"


def test_ids_and_inputs_are_unique_over_all_suites() -> None:
    everything = [item for suite in SUITES for item in items(suite)]

    assert len({item["id"] for item in everything}) == len(everything)
    assert len({item["input"] for item in everything}) == len(everything)


def spoken(suite: str, answer: object) -> str:
    """The answer as the suite's prompts ask for it."""
    if suite == "arithmetic":
        return f"Step by step.\nANSWER: {answer}"
    return answer if isinstance(answer, str) else json.dumps(answer)


@each_suite
def test_every_target_is_right_and_every_distractor_wrong(suite: str) -> None:
    options = {"final_line": "ANSWER:"} if suite == "arithmetic" else {}
    file = FOLDER / f"{suite}.jsonl"
    loaded = load_suite(
        SuiteSettings(suite, path=file, scorer=SUITES[suite], scorer_options=options)
    )

    assert loaded.left_out == {}
    for item in loaded.items.values():
        assert loaded.score(spoken(suite, item.target), item.id).strict == 1, item.id
        for wrong in item.metadata["distractors"]:
            assert loaded.score(spoken(suite, wrong), item.id).strict == 0, (item.id, wrong)
