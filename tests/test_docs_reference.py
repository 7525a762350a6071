"""The registries that reference pages are written from have all that the code has."""

import re
from pathlib import Path

import pytest

from docs_reference.registries import list_keys, list_policy_keys
from harness.frame.alerts.alert import ALERT_RULES
from harness.frame.errors import SwapproofError
from harness.frame.formatting import format_quantity
from harness.frame.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
)
from harness.frame.signing.audit_sentences import PHRASES
from harness.gate.online.outcome import JudgeOutcome
from harness.gate.online.rollout import RolloutSignal
from harness.routing.proposal import ProposalEvent

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
SOURCES = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for top in ("harness", "router")
    for file in sorted((ROOT / top).rglob("*.py"))
    # Names each action again, and writes none.
    if file.name != "audit_sentences.py"
}
FAULTS = 37
METRICS = {
    **ROUTER_METRICS,
    **PROCESS_COUNTERS,
    **CONTROL_METRICS,
}


def find_in_code(pattern: str) -> set[str]:
    return {match for text in SOURCES.values() for match in re.findall(pattern, text)}


@pytest.mark.parametrize("text", [list_keys(), list_policy_keys()])
def test_every_key_of_the_configuration_has_a_type_and_a_meaning(text: str) -> None:
    rows = re.findall(r"^- (`[^(]+`) \((.+?)\): (.*)$", text, re.MULTILINE)

    assert len(rows) > 50
    assert [key for key, kind, meaning in rows if not (kind and meaning)] == []


def test_every_header_that_the_code_names_is_in_the_table() -> None:
    used = find_in_code(r"[\"'](x-swapproof-[a-z-]+)[\"']")

    page = (REFERENCE / "headers.md").read_text(encoding="utf-8")
    assert used == set(re.findall(r"^- `(x-[\w-]+)`: ", page, re.MULTILINE))


def test_every_counter_of_a_router_is_in_the_table() -> None:
    counted = find_in_code(r"counters\[\"(\w+)\"\]") - {"rows_dropped"}
    for observer in ("judge", "shadow"):
        why = re.findall(
            r"(?:return|else|_count\((?:.+, )?) ?\"(\w+)\"",
            SOURCES[f"router/observers/{observer}.py"]
            + SOURCES["router/observers/side_calls.py"],
        )
        counted |= {f"{observer}_{reason}" for reason in why}
    counted |= {f"judge_{outcome.name.lower()}" for outcome in JudgeOutcome}

    assert {
        "judge_asked",
        "judge_resting",
        "shadow_dropped",
        "shadow_unable",
    } <= counted
    assert [name for name in counted if f"swapproof_router_{name}" not in METRICS] == []


def test_every_action_of_the_audit_log_is_in_the_table() -> None:
    page = (REFERENCE / "events.md").read_text(encoding="utf-8")
    page = page.partition("## The audit log")[2].replace("\n  ", " ")
    listed = re.findall(r"^- (`.+)$", page, re.MULTILINE)
    told = {action for line in listed for action in re.findall(r"`([\w.]+)`", line)}
    subjects = "|".join(sorted({action.partition(".")[0] for action in told}))
    columns = {"proposal.id", "shadow.id"}
    named = find_in_code(rf"\"((?:{subjects})\.[a-z_]+)\"")
    moved = {f"canary.{signal}" for signal in RolloutSignal} | {
        f"proposal.{event}" for event in ProposalEvent
    }

    assert sorted((named | moved) - columns - told) == []
    written = named | moved | {"verdict", "agent.switch_approve", "agent.switch_reject"}
    assert sorted(told - written) == []
    assert PHRASES.keys() == told


def test_every_kind_of_alert_is_listed_with_its_rule() -> None:
    page = (
        (REFERENCE / "events.md").read_text(encoding="utf-8").partition("## The audit log")[0]
    )
    page = page.replace("\n  ", " ")  # an item's further lines
    lines = re.findall(r"^- \*\*(\w+)\*\*, (.+?): (\[.+)$", page, re.MULTILINE)
    told = {
        kind: (severity, lasts)
        for severity, lasts, kinds in lines
        for kind in re.findall(r"\[`(\w+)`\]", kinds)
    }

    assert told.keys() == {kind.value for kind in ALERT_RULES}
    for kind, rule in ALERT_RULES.items():
        remind = rule.remind
        again = (
            format_quantity(remind.days, "day")
            if remind.days > 1
            else format_quantity(int(remind.total_seconds()) // 3600, "hour")
        )
        lasts = f"persists, repeated after {again}" if rule.lasting else "a single event"
        assert told[kind.value] == (rule.severity.name.lower(), lasts)


def test_every_error_is_on_the_page_with_a_known_exit_code() -> None:
    waiting = [SwapproofError]
    known = set()
    while waiting:
        waiting += (children := waiting.pop().__subclasses__())
        known |= {cls for cls in children if cls.__module__ == "harness.frame.errors"}

    page = (REFERENCE / "exit-codes.md").read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    rows = re.findall(r"^- `(\w+)` \((\d+)[,)]", page, re.MULTILINE)
    assert {name for name, _ in rows} == {cls.__name__ for cls in known}
    assert {int(code) for _, code in rows} <= codes


def test_every_fault_has_a_row_that_names_its_tests() -> None:
    page = (ROOT / "tests/faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+)(?:–(\d+))? \| .+ \| (.+) \|$", page, re.MULTILINE)
    numbers = [n for first, last, _ in rows for n in range(int(first), int(last or first) + 1)]
    files = [re.findall(r"`(\w+/test_\w+\.py)`", tests) for _, _, tests in rows]

    assert numbers == list(range(1, FAULTS + 1))
    assert all(files)
    assert [name for row in files for name in row if not (ROOT / "tests" / name).exists()] == []
