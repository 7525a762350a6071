import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.app.gateways.flagd_file import OTHER_RULES, FlagdFile
from harness.frame.errors import UpstreamError
from harness.providers.target import Target

pytestmark = pytest.mark.req("F1")

BASE = Target("sim", "base")
BETTER = Target("sim", "better")
TARGETS = (BASE, BETTER)
FLAG = {
    "state": "ENABLED",
    "variants": {
        "a": "sim/base",
        "b": {"model": "better"},
        "c": "gpt-9",
    },
    "defaultVariant": "a",
}
START = datetime(2026, 1, 1, tzinfo=UTC)
SPAN = {
    "traceId": "01",
    "spanId": "02",
    "startTimeUnixNano": f"{int(START.timestamp()) + 60}000000000",
    "endTimeUnixNano": f"{int(START.timestamp()) + 62}500000000",
    "status": {"code": 2},
}


def ours(*weights: list[Any]) -> Any:
    caller = {"var": "targetingKey"}
    return {"if": [caller, {"fractional": [{"cat": ["salt", caller]}, *weights]}]}


class Files:
    def __init__(self, folder: Path) -> None:
        self.flags = folder / "flags.json"
        self.spans = folder / "spans.jsonl"
        self.write(FLAG)
        self.driver = FlagdFile(self.flags, self.spans)

    def write(self, flag: Any) -> None:
        self.flags.write_text(json.dumps({"flags": {"support": flag}}), "utf-8")

    @property
    def flag(self) -> Any:
        return json.loads(self.flags.read_bytes())["flags"]["support"]

    def outcomes(self) -> list[tuple[str, str | None, bool, float]]:
        found = self.driver.read_outcomes(START, {"support": TARGETS})
        return [(o.caller, o.target, o.failed, o.latency_s) for o in found]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def span(
    caller: str,
    variant: str,
    **more: Any,
) -> str:
    said = {
        "key": "support",
        "result.variant": variant,
        "context.id": caller,
    }
    attributes = [
        {"key": f"feature_flag.{name}", "value": {"stringValue": value}}
        for name, value in said.items()
    ]
    event = {"name": "feature_flag.evaluation", "attributes": attributes}
    spans = [
        {
            **SPAN,
            "events": [event],
            **more,
        }
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})


def test_a_candidate_keeps_its_callers_while_its_share_grows_and_the_next_gets_others(
    files: Files,
) -> None:
    def share(bps: int) -> Any:
        split = {BASE.id: 10_000 - bps, BETTER.id: bps} if bps else {BASE.id: 10_000}
        files.driver.set_split("support", TARGETS, split)
        assert files.driver.read_split("support", TARGETS) == split
        targeting = files.flag["targeting"]
        return targeting and targeting["if"][1]["fractional"]

    first = share(100)
    later = share(7_000)
    assert first[0] == later[0]
    assert later[1:] == [["b", 7_000], ["a", 3_000]]  # the first bucket is the candidate's
    assert not share(0)
    assert share(100)[0] != first[0]


@pytest.mark.parametrize(
    ("change", "split"),
    [
        ({}, {BASE.id: 10_000}),
        ({"state": "DISABLED"}, {}),
        ({"defaultVariant": "c"}, {"variant c": 10_000}),
        (
            {"targeting": {"fractional": [["a", 1], ["b", 1]]}},
            {OTHER_RULES: 10_000},
        ),
        ({"targeting": ours(["b", "1"], ["a", 99])}, {OTHER_RULES: 10_000}),
        ({"targeting": ours(["b", -1], ["a", 99])}, {BASE.id: 10_000}),
        (
            {"targeting": ours(["a", 99], ["b", 1])},
            {"default variant a": 10_000},
        ),
        (
            {"targeting": ours(["c", 1], ["a", 10**6])},
            {"variant c": 1, BASE.id: 10_000},
        ),
    ],
    ids=[
        "default",
        "disabled",
        "another model",
        "rules",
        "text",
        "negative",
        "keyless",
        "tiny",
    ],
)
def test_a_flags_shares_are_those_that_flagd_gives(
    files: Files,
    change: dict[str, Any],
    split: dict[str, int],
) -> None:
    files.write({**FLAG, **change})

    assert files.driver.read_split("support", TARGETS) == split


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        (
            {**FLAG, "targeting": {"if": [True, "c"]}},
            "targeting of its own: remove it",
        ),
        (
            {**FLAG, "state": "DISABLED"},
            "is not enabled, or has no variants: correct the flag",
        ),
        (
            {**FLAG, "variants": {"a": "sim/base"}},
            "no variant of sim/better: add a variant",
        ),
        (
            {**FLAG, "variants": None},
            "is not enabled, or has no variants: correct the flag",
        ),
    ],
)
def test_a_flag_that_cannot_be_split_stays_as_it_is(
    files: Files,
    flag: dict[str, Any],
    reason: str,
) -> None:
    files.write(flag)

    with pytest.raises(UpstreamError, match=reason):
        files.driver.set_split("support", TARGETS, {BASE.id: 9_900, BETTER.id: 100})
    assert files.flag == flag


def test_each_whole_line_of_spans_counts_once_and_an_unreadable_one_is_reported(
    files: Files,
) -> None:
    half = span("late", "a", status={})
    files.spans.write_text(f"{span('u-1', 'b')}\n{span('', 'a')}\n{half[:40]}", "utf-8")
    assert files.outcomes() == [("u-1", BETTER.id, True, 2.5)]

    with files.spans.open("a") as file:
        file.write(f"{half[40:]}\n")
    assert files.outcomes() == [("late", BASE.id, False, 2.5)]

    rotated = files.spans.with_suffix(".new")
    odd = span("odd", "b", endTimeUnixNano="0")
    rotated.write_text(f"{{}}}}\n\n{odd}\n", "utf-8")
    rotated.replace(files.spans)
    with pytest.raises(UpstreamError, match=r"a batch of .* is unreadable"):
        files.outcomes()
    assert files.outcomes() == []
