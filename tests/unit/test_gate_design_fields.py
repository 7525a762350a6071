"""What a plan fixes before the first score, and which rule of form or loss is chosen."""

import math
from dataclasses import replace

import pytest

from harness.domain.errors import InputError
from harness.domain.evals.suite_plan import Claim, PrimaryCombination, UnseenLoss
from harness.domain.routing.target import RequestPatch, Target
from harness.gate.offline.design import (
    REJECT_LOG_E,
    Design,
    choose_unseen_loss,
    design_from_plan,
    mirrored_spread,
    unseen_loss,
)
from harness.gate.offline.format_rules import (
    CODE_ONLY,
    FORMAT_RULES,
    IFEVAL_RULE,
    JSON_MODE,
    JSON_ONLY,
    OTHER_RULE,
    TEXT_ONLY,
    FormatRule,
    _json,
    find_format_rule,
    find_remedy,
    format_prompts,
    patch_candidate,
    target_options,
    with_json_mode,
)
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("F2", "A8")


def test_a_fifth_of_alpha_is_for_early_promotion_and_the_rest_for_the_end() -> None:
    design = Design(Claim.SUPERIOR, 0.05, 1, alpha=0.02)
    assert (design.alpha1, design.alpha2) == pytest.approx((0.004, 0.016))
    assert design.bets_for == design.promote_at == pytest.approx(math.log(250))
    late = replace(design, early=False)
    assert (late.alpha1, late.alpha2, late.promote_at) == (0.0, 0.02, math.inf)
    assert late.bets_for == design.bets_for
    assert pytest.approx(math.log(20)) == REJECT_LOG_E


def test_a_claim_about_costs_is_no_design_and_the_ends_of_a_margin_are_none() -> None:
    with pytest.raises(InputError, match="no claim about scores alone"):
        Design(Claim.CHEAPER, 0.05, 10)
    for field, value in (("margin", 1.0), ("margin", 0.0), ("alpha", 0.0), ("alpha", 1.0)):
        with pytest.raises(InputError, match="is between 0 and 1"):
            replace(Design(Claim.SUPERIOR, 0.05, 10), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1 item, not 0"):
        Design(Claim.SUPERIOR, 0.05, 0)
    assert Design(Claim.SUPERIOR, 0.05, 1).n_max == 1


def test_a_plan_with_all_its_terms_becomes_its_design() -> None:
    terms = replace(
        plan(n_max=4, claim=Claim.CHEAPER),
        alpha=0.01,
        margin=0.07,
        cluster="document",
        cluster_sizes=(1, 2, 3, 4),
        unseen=UnseenLoss.MIRRORED,
    )
    design = Design(
        Claim.NON_INFERIOR,
        0.07,
        4,
        0.01,
        unit="cluster",
        cluster_size=2.5,
        unseen=UnseenLoss.MIRRORED,
    )
    assert design_from_plan(terms) == design
    weighted = replace(terms, combine=PrimaryCombination.WEIGHTED)
    assert design_from_plan(weighted) == design
    one_of = replace(terms, combine=PrimaryCombination.ANY)
    assert design_from_plan(one_of) == replace(design, early=False)
    assert design_from_plan(plan(n_max=4)) == Design(Claim.SUPERIOR, 0.05, 4)


def test_a_large_suite_is_tested_for_a_whole_loss_and_a_small_one_for_what_is_mirrored() -> (
    None
):
    assert choose_unseen_loss(199) is UnseenLoss.MIRRORED
    assert choose_unseen_loss(200) is UnseenLoss.WHOLE
    d = [0.5, 0.5, -0.25, 0.25]
    above, below = 0.25**2 * 2, 0.5**2 + 0.0
    assert float(mirrored_spread(d)) == min(above, below)
    assert float(mirrored_spread([-x for x in d])) == min(above, below)
    assert mirrored_spread([d, [0.0] * 4]).tolist() == [min(above, below), 0.0]
    assert float(unseen_loss(UnseenLoss.MIRRORED, 3.0)) == pytest.approx(-0.4)


def test_a_rule_of_form_is_found_by_its_outermost_name() -> None:
    fence = FORMAT_RULES["code_fence"]
    assert _json("what", "parser") == FormatRule("what", JSON_ONLY, "parser", json_mode=True)
    assert find_format_rule("code_fence+single_quotes") == fence
    assert find_format_rule("single_quotes+code_fence") == FORMAT_RULES["single_quotes"]
    assert find_format_rule("nothing+code_fence") is OTHER_RULE
    assert find_format_rule("length_constraints:words+code_fence") is IFEVAL_RULE
    for scorer in ("", "json_fields", "json_schema"):
        assert find_format_rule("leading_prose", scorer).json_mode
    code = find_format_rule("leading_prose", "code")
    assert code == FormatRule(
        "writes words before the answer", CODE_ONLY, "read from the first brace"
    )
    assert find_format_rule("double_escaped", "other") == FormatRule(
        "escapes its answer twice", TEXT_ONLY, "decode a string that holds JSON"
    )
    assert find_format_rule("case", "code") == FORMAT_RULES["case"]


def test_every_line_of_a_remedy_is_one_of_the_listed_prompts() -> None:
    prompts = format_prompts()
    assert TEXT_ONLY in prompts
    assert CODE_ONLY in prompts
    for rule in (*FORMAT_RULES, "other", "a:b"):
        for scorer in ("", "code", "label", "choice", "exact", "regex", "numeric", "tool_call"):
            assert find_format_rule(rule, scorer).prompt in prompts


def test_a_rule_that_breaks_in_a_tenth_of_all_breaks_has_its_own_line() -> None:
    key_case = FORMAT_RULES["key_case"].prompt
    for often, lines in ((9, f"{JSON_ONLY} {key_case}"), (10, JSON_ONLY)):
        remedy = find_remedy({"code_fence": often, "key_case": 1})
        assert remedy is not None
        assert (remedy.rule, remedy.prompt, remedy.json_mode) == ("code_fence", lines, True)
    joined = find_remedy({"code_fence": 2, "quotes+x": 1, "quotes": 2})
    assert joined is not None
    assert joined.rule == "quotes"
    assert find_remedy({}) is None


def test_a_remedy_is_written_beside_what_the_target_has() -> None:
    remedy = find_remedy({"code_fence": 1})
    assert remedy is not None
    bare = Target("sim", "m")
    spoken = replace(bare, request_patch=RequestPatch({"seed": 7}, "Be brief."))

    assert patch_candidate(bare, remedy).request_patch.prompt_addendum == JSON_ONLY
    patched = patch_candidate(spoken, remedy)
    assert patched.request_patch == RequestPatch({"seed": 7}, f"Be brief. {JSON_ONLY}")
    assert with_json_mode(spoken).request_patch == replace(
        spoken.request_patch, response_format=JSON_MODE
    )
    assert target_options(bare) == []
    full = replace(with_json_mode(spoken), parameters={"stop": ["ø"]})
    assert target_options(full) == [
        *("--param", 'stop=["ø"]', "--patch-param", "seed=7"),
        *("--prompt-addendum", "Be brief."),
        *("--response-format", '{"type": "json_object"}'),
    ]
