import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.gate.arrays import log_mean
from harness.gate.budget import holm_test
from harness.gate.offline.design import Design
from harness.gate.offline.intervals import mcnemar, tango_interval, tango_p
from harness.gate.offline.sequential import (
    build_evidence,
    check_differences,
    evidence_path,
    judge_differences,
)
from harness.gate.online.evidence_paths import counts_path, ranks_path
from harness.gate.online.fisher import (
    Certificate,
    add_block,
    log_odds_e,
    log_srm,
)
from harness.gate.online.guardrails import FailureTally, rank_among
from harness.gate.online.worker_guard import HARM_GRID
from harness.gate.suite_plan import Claim

FILE = Path(__file__).parent.parent / "golden" / "golden.json"
GOLDEN: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
OUTCOMES = {
    "PROMOTE": "promote",
    "REJECT": "reject",
    "INCONCLUSIVE": "inconclusive",
    "RUNNING": "running",
}

pytestmark = pytest.mark.req("F2")


def close(value: float, rel: float = 1e-6) -> Any:
    return pytest.approx(value, rel=rel, abs=1e-12)


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-4, abs=1e-12)


def cases(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case",
        GOLDEN[section],
        ids=[case.get("name", "") for case in GOLDEN[section]],
    )


def design_of(case: dict[str, Any]) -> Design:
    return Design(Claim(case["mode"]), case["margin"], case["n_max"])


def test_no_section_of_the_file_is_left_out() -> None:
    prose = {"about", "other"}
    tested = {
        "gate",
        "canary",
        "canary_grid",
        "canary_restart",
        "rank",
        "srm",
        "streams",
        "tango",
        "tango_p",
        "items_to_certify_no_difference",
        "holm",
    }
    assert set(GOLDEN) <= prose | tested


@cases("gate")
def test_the_gate_decides_as_the_reference_does(case: dict[str, Any]) -> None:
    evidence = judge_differences(case["d"], design_of(case))

    assert evidence.outcome == OUTCOMES[case["verdict"]]
    assert (evidence.how or "-") == case["how"]
    assert evidence.n_used == case["n_used"]


@cases("gate")
def test_the_running_figures_agree_also_past_the_stop(case: dict[str, Any]) -> None:
    # The reference's evidence has no margin.
    taken = evidence_path(case["d"], replace(design_of(case), claim=Claim.SUPERIOR))

    for item, log_e in case["log_e_bad"].items():
        assert taken.log_e_bad[int(item) - 1] == close(log_e)


@cases("gate")
def test_the_final_figures_agree_over_all_items(case: dict[str, Any]) -> None:
    taken = evidence_path(case["d"], design_of(case))
    differences = check_differences(case["d"])
    evidence = build_evidence(differences, taken, design_of(case))

    assert evidence.t == close(case["t_final"])
    assert evidence.p_t == near(case["p_t"])
    assert evidence.p_final == near(case["p_final"])
    assert [evidence.ci_low, evidence.ci_high] == [near(limit) for limit in case["ci95"]]


@cases("canary")
def test_evidence_of_harm_and_of_no_harm_agrees_block_by_block(case: dict[str, Any]) -> None:
    certificate = Certificate()
    blocks = case["blocks_n_m_F_y"]
    harm = counts_path([FailureTally(*block) for block in blocks], case["rho"], weights=())
    assert harm.tolist() == [close(log_e) for log_e in case["log_e"]]
    for block, log_e_ni in zip(blocks, case["log_e_ni_rho2"], strict=True):
        certificate = add_block(certificate, tuple(block), rho_ni=2.0)
        assert log_odds_e(certificate) == close(log_e_ni)


def test_the_grid_of_harm_is_the_registered_one() -> None:
    assert list(HARM_GRID) == GOLDEN["canary_grid"]


def test_ranks_agree() -> None:
    path = ranks_path([[u] for u in GOLDEN["rank"]["u"]])
    assert path.tolist() == [close(log_e) for log_e in GOLDEN["rank"]["log_e"]]
    for example in GOLDEN["rank"]["u_examples"]:
        assert rank_among(example["x"], example["controls"], example["U"]) == example["u"]


@cases("srm")
def test_the_sample_ratio_check_agrees(case: dict[str, Any]) -> None:
    found = log_srm(case["canary"], case["total"], case["pi"], case["strength"])
    assert found == close(case["log_e"])


def test_streams_combine_by_their_mean() -> None:
    assert log_mean(GOLDEN["streams"]["log_e"]) == close(GOLDEN["streams"]["combined"])


@cases("tango")
def test_intervals_and_mcnemar_agree(case: dict[str, Any]) -> None:
    nemar = mcnemar(case["b"], case["c"])
    wanted = case["mcnemar"]

    assert tango_interval(case["b"], case["c"], case["n"]) == near(case["ci95"])
    assert nemar.exact == near(wanted["exact"])
    assert nemar.mid_p == near(wanted["midp"])


@cases("tango_p")
def test_tangos_p_agrees(case: dict[str, Any]) -> None:
    assert tango_p(case["b"], case["c"], case["n"], case["theta0"]) == near(case["p"])


def test_a_candidate_that_never_differs_is_certified_at_the_known_item() -> None:
    case = GOLDEN["items_to_certify_no_difference"]
    for n_max, item in zip(case["n_max"], case["item"], strict=True):
        design = Design(Claim.NON_INFERIOR, case["margin"], n_max)
        evidence = judge_differences([0.0] * n_max, design)
        assert (evidence.outcome, evidence.how, evidence.n_used) == (
            "promote",
            "early",
            item,
        )


def test_holm_agrees() -> None:
    case = GOLDEN["holm"]
    assert list(holm_test(case["p"], case["alpha"])) == case["promote"]
