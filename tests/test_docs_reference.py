"""The registries that reference pages are written from have all that the code has."""

import re
from pathlib import Path

import pytest

from harness.cli.reference.config_reference import config_page, policies_page
from harness.cli.reference.event_reference import AUDIT_ACTIONS, EXIT_CODES, exit_codes_page
from harness.cli.reference.metric_reference import HTTP_HEADERS
from harness.domain.canary.judge import JudgeOutcome
from harness.domain.canary.rollout import RolloutSignal
from harness.domain.errors import SwapgateError
from harness.domain.operations.metrics import CONTROL_METRICS, PROCESS_COUNTERS, ROUTER_METRICS
from harness.domain.proposals.proposal import ProposalEvent
from harness.package_data import path as shipped

ROOT = Path(__file__).parent.parent
SOURCES = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for top in ("harness", "router")
    for file in sorted((ROOT / top).rglob("*.py"))
}
FAULTS = 37
METRICS = {**ROUTER_METRICS, **PROCESS_COUNTERS, **CONTROL_METRICS}


def find_in_code(pattern: str, *, without: str) -> set[str]:
    """Every match in product code, the registry's own file left out."""
    found = (re.findall(pattern, text) for file, text in SOURCES.items() if without != file)
    return {match for matches in found for match in matches}


@pytest.mark.parametrize(
    "text", [config_page(), policies_page(shipped("config/default.yaml").read_text())]
)
def test_every_key_of_the_configuration_has_a_type_and_a_meaning(text: str) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \| .* \| .* \| (.*) \|$", text, re.MULTILINE)

    assert len(rows) > 50
    assert [key for key, kind, meaning in rows if not (kind and meaning)] == []


def test_every_header_that_the_code_names_is_in_the_table() -> None:
    used = find_in_code(
        r"[\"'](x-swapgate-[a-z-]+)[\"']", without="harness/cli/reference/metric_reference.py"
    )

    assert used == set(HTTP_HEADERS)


def test_every_counter_of_a_router_is_in_the_table() -> None:
    counted = find_in_code(r"counters\[\"(\w+)\"\]", without="") - {"rows_dropped"}
    for observer in ("judge", "shadow"):
        why = re.findall(
            r"(?:return|else|_count\((?:.+, )?) ?\"(\w+)\"",
            SOURCES[f"router/observers/{observer}.py"],
        )
        counted |= {f"{observer}_{reason}" for reason in why}
    counted |= {f"judge_{outcome.name.lower()}" for outcome in JudgeOutcome}

    assert {"judge_asked", "judge_resting", "shadow_dropped", "shadow_unable"} <= counted
    assert [name for name in counted if f"swapgate_router_{name}" not in METRICS] == []


def test_every_action_of_the_audit_log_is_in_the_table() -> None:
    subjects = "|".join(sorted({action.partition(".")[0] for action in AUDIT_ACTIONS}))
    columns = {"proposal.id", "shadow.id"}
    named = find_in_code(
        rf"\"((?:{subjects})\.[a-z_]+)\"", without="harness/cli/reference/event_reference.py"
    )
    moved = {f"canary.{signal}" for signal in RolloutSignal} | {
        f"proposal.{event}" for event in ProposalEvent
    }

    assert sorted((named | moved) - columns - set(AUDIT_ACTIONS)) == []
    written = named | moved | {"verdict", "agent.switch_approve", "agent.switch_reject"}
    assert sorted(set(AUDIT_ACTIONS) - written) == []


def test_every_error_is_on_the_page_with_a_known_exit_code() -> None:
    waiting, known = [SwapgateError], set()
    while waiting:
        waiting += (children := waiting.pop().__subclasses__())
        known |= {cls for cls in children if cls.__module__ == "harness.domain.errors"}

    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", exit_codes_page(), re.MULTILINE)
    assert {name for name, _ in rows} == {cls.__name__ for cls in known}
    assert {int(code) for _, code in rows} <= set(EXIT_CODES)


def test_every_fault_has_a_row_that_names_its_tests() -> None:
    page = (ROOT / "docs/reference/faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+)(?:–(\d+))? \| .+ \| (.+) \|$", page, re.MULTILINE)
    numbers = [n for first, last, _ in rows for n in range(int(first), int(last or first) + 1)]
    files = [re.findall(r"`(\w+/test_\w+\.py)`", tests) for _, _, tests in rows]

    assert numbers == list(range(1, FAULTS + 1))
    assert all(files)
    assert [name for row in files for name in row if not (ROOT / "tests" / name).exists()] == []
