from harness.domain.content_hash import canonical_json
from harness.domain.evals.verdict import (
    CostFigures,
    CostOutcome,
    HolmFigures,
    LenientFigures,
    SuiteFigures,
)
from harness.domain.plain_data import from_plain

WHOLE = SuiteFigures(
    alpha=0.05,
    look=2,
    spend="first_full",
    t=1.5,
    p_t=0.25,
    incumbent_mean=0.5,
    unscored_candidate=3,
    more_items=40,
    rule="code_fence",
    rules={"code_fence": 2},
    examples=("q0", "q1"),
    lenient=LenientFigures(outcome="passed", n_used=8, delta=0.5),
    cost=CostFigures(min_saving=0.2, outcome=CostOutcome.SHOWN, n_used=9, saving=0.5),
    holm=HolmFigures(p=0.01, rank=1, limit=0.025),
)
PLAIN = (
    '"incumbent_mean":null,"lenient":null,"lenient_candidate_mean":null,'
    '"lenient_incumbent_mean":null,"mcnemar_exact":null,"mcnemar_mid_p":null,'
    '"more_items":null,"near_ties":0,"p_t":null,"rule":null,"rules":{},"sd":null,"t":null,'
    '"unanswered":0,"unscored_candidate":0,"unscored_incumbent":0}'
)


def test_what_does_not_apply_is_not_stored() -> None:
    written = canonical_json(SuiteFigures(alpha=0.05).as_json())

    assert written == f'{{"alpha":0.05,"candidate_mean":null,"examples":[],{PLAIN}'


def test_the_parts_are_stored_by_name() -> None:
    written = WHOLE.as_json()

    assert (written["look"], written["spend"]) == (2, "first_full")
    assert written["examples"] == ["q0", "q1"]
    assert canonical_json(written["holm"]) == '{"limit":0.025,"p":0.01,"rank":1}'
    assert canonical_json(written["lenient"]) == (
        '{"ci_high":null,"ci_low":null,"delta":0.5,"n_used":8,'
        '"outcome":"passed","p_final":null}'
    )
    assert canonical_json(written["cost"]) == (
        '{"above_ceiling":0,"candidate_usd":null,"incumbent_usd":null,"log_e":0.0,'
        '"log_e_bad":0.0,"min_saving":0.2,"missing_candidate":0,"missing_incumbent":0,'
        '"n_used":9,"outcome":"shown","saving":0.5,"saving_high":null,"saving_low":null}'
    )


def test_what_was_stored_is_read_again() -> None:
    assert from_plain(SuiteFigures, WHOLE.as_json()) == WHOLE
