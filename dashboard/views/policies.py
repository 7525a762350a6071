"""The section of the Routes page about policies, the rules of proof for candidates.

It explains each rule of a policy in a sentence. People change policies in the configuration
file alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import streamlit as st

from dashboard import labels, markup, page_frame
from dashboard.markup import escape, strong
from dashboard.resource_page import Cards, ResourceList
from harness.frame.formatting import (
    format_bps,
    format_number,
    format_percent,
    format_quantity,
    format_score,
)
from harness.gate.budget import ALL_LOOKS
from harness.gate.online.guardrail_report import GUARDRAIL_NAMES
from harness.gate.policy import (
    CanaryPolicy,
    CanaryStep,
    ChangeReferenceRule,
    GatePolicy,
    Policy,
    PromotionMode,
    Retirement,
)
from harness.gate.suite_plan import Claim
from harness.operations.context import Context

MOST_ROUTES: Final = 8
NOTE: Final = (
    "The policy sets the proof that a candidate needs, its approval, and the steps of its "
    "canary. The form on Proposals forecasts a swap's items, cost and time."
)


@dataclass(frozen=True, slots=True)
class PoliciesView:
    """The section's data. other_policies: sorted by the number of their routes, most first."""

    own_policy: Sequence[Policy]  # the policy of the page's route; empty without a route
    other_policies: Sequence[Policy]
    routes_by_policy: Mapping[str, Sequence[str]]  # the routes that use a policy


def load(ctx: Context, own_name: str) -> PoliciesView:
    """Loads the policies, and the routes that use each."""
    routes_by_policy: dict[str, list[str]] = {name: [] for name in ctx.policies}
    for route in ctx.store.lists.routes():
        routes_by_policy.setdefault(route.settings.policy, []).append(route.name)
    ordered = sorted(ctx.policies, key=lambda name: (-len(routes_by_policy[name]), name))
    return PoliciesView(
        [ctx.policies[own_name]] if own_name in ctx.policies else [],
        [ctx.policies[name] for name in ordered if name != own_name],
        routes_by_policy,
    )


def show(own_name: str = "") -> None:
    """Shows the policies.

    Args:
        own_name: the policy of the page's route, which comes first.
    """
    view = load(page_frame.context(), own_name)
    st.html(markup.section("Policy", NOTE))
    OWN.show(view)
    OTHERS.show(view)


def _render_card(view: PoliciesView, policy: Policy) -> Sequence[str]:
    """Renders a policy: the routes that use it, its rules and the steps of its canary."""
    needs_person = policy.promotion is PromotionMode.APPROVED
    approval = "a person approves" if needs_person else "automatic"
    tone = labels.Tone.UNDECIDED if needs_person else labels.Tone.NEUTRAL
    routes = view.routes_by_policy[policy.name]
    users = "No route uses it."
    if routes:
        names = [markup.link("routes", escape(name), route=name) for name in routes]
        count = escape(labels.plural(len(routes), "route"))
        users = f"{count}: {labels.few(names, MOST_ROUTES)}"
    name = f'<span class="name">{strong(policy.name)}</span>'
    plan = [
        (format_bps(step.weight_bps), _describe_conditions(step))
        for step in policy.canary.steps
    ]
    return [
        markup.block(
            f"<p>{name} {markup.pill(approval, tone)}</p>", f'<p class="note">{users}</p>'
        ),
        summary(policy),
        markup.steps([*plan, ("100 %", "promoted")], None),
    ]


def summary(policy: Policy) -> str:
    """Renders the rules of a policy, one sentence for each."""
    rows = (
        ("To pass", _explain_claim(policy.gate)),
        ("Wrong passes", _explain_risk(policy.gate)),
        ("Items", _explain_items(policy.gate)),
        ("Money", _explain_limits(policy)),
        ("Approval", _explain_approval(policy)),
        (
            "Proof",
            f"A verdict is proof for {labels.span(policy.gate.verdict_ttl_s)}.",
        ),
        ("Canary", _explain_canary(policy.canary)),
        ("Guarded by", _list_guardrails(policy.canary)),
        ("Afterwards", _explain_bake(policy.canary)),
    )
    return markup.facts([(name, escape(words)) for name, words in rows])


def _explain_claim(gate: GatePolicy) -> str:
    """Explains the claim that a candidate must prove, and the other claims that a proposal may
    make.
    """
    loss = f"{format_score(gate.margin, None)} points"
    match gate.claim:
        case Claim.SUPERIOR:
            words = "The candidate must be shown to be better than the current model."
        case Claim.NON_INFERIOR:
            words = f"The candidate must be shown to be at most {loss} worse."
        case Claim.CHEAPER:
            saving = format_percent(gate.min_saving)
            words = (
                f"The candidate must save {saving} of the cost, and be at most {loss} worse."
            )
    other_claims = [
        labels.CLAIMS[claim] for claim in gate.allowed_claims if claim is not gate.claim
    ]
    if other_claims:
        largest = f"{format_score(gate.largest_margin, None)} points"
        words += (
            f" A proposal may claim “{'” or “'.join(other_claims)}” instead, with an allowed "
            f"loss of up to {largest}."
        )
    return words


def _explain_risk(gate: GatePolicy) -> str:
    """Explains alpha: how often a candidate that should fail passes by luck, in one proposal
    and in repeated ones.
    """
    passes = format_score(gate.alpha, None)
    budget = ""
    if gate.alpha_budget is not None:
        budget_passes = format_score(gate.alpha_budget, None)
        budget = (
            f" All candidates of a route in 90 days together: at most {budget_passes} in 100."
        )
    return (
        f"Of 100 candidates that should fail, at most {passes} pass by luck. If they are "
        f"proposed again and again, at most {format_score(gate.alpha * ALL_LOOKS, None)} pass."
        f"{budget}"
    )


def _explain_items(gate: GatePolicy) -> str:
    amount = (
        "All items of each suite are"
        if gate.n_max is None
        else f"Up to {gate.n_max:,} items of each suite are"
    )
    times = "once" if gate.epochs == 1 else f"{gate.epochs:,} times"
    return f"{amount} asked {times} of both models; a clear result ends the run earlier."


def _explain_limits(policy: Policy) -> str:
    gate = policy.gate
    limits = []
    if gate.max_cost_usd is not None:
        limits.append(labels.usd(gate.max_cost_usd))
    if gate.max_tokens is not None:
        limits.append(labels.plural(gate.max_tokens, "token"))
    words = (
        f"An eval run ends at {' or '.join(limits)}."
        if limits
        else "An eval run has no limit of its own: Proposals forecasts a swap's cost."
    )
    judge = policy.canary.judge
    if judge is not None:
        words += f" The canary's judge may cost {labels.usd(judge.max_usd)} for each canary."
    return words


def _explain_approval(policy: Policy) -> str:
    """Explains the approval of a swap, the time for it, and whether it needs a change
    request.
    """
    words = "No approval is needed: the canary of a candidate that passed opens at once."
    if policy.promotion is not PromotionMode.AUTOMATIC:
        approver = "A person" if policy.self_approval else "A person other than the proposer"
        words = (
            f"{approver} approves before the canary starts, within "
            f"{labels.span(policy.approval_ttl_s)}; else the proposal expires."
        )
    if policy.change_reference is ChangeReferenceRule.REQUIRED:
        words += " The proposer or the approver must name a change request."
    if policy.retire is Retirement.AUTO:
        words += (
            " Swapproof proposes a proven spare, so that its canary opens "
            f"{format_quantity(policy.retire_before_d, 'day')} before the model ends."
        )
    return words


def _explain_canary(canary: CanaryPolicy) -> str:
    alarm = format_score(canary.alpha + canary.local_alpha, None)
    audiences = [step.audience.text for step in canary.audiences if step.audience.text]
    named = f" Without a draw, {audiences[0]}." if audiences else ""
    return (
        "Swapproof rolls the canary back as soon as harm is shown. Of 100 canaries that do "
        f"no harm, at most {alarm} are rolled back. The canary counts callers.{named}"
    )


def _list_guardrails(canary: CanaryPolicy) -> str:
    """Lists the guardrails by the increase that they tolerate."""
    names_by_ratio: dict[float, list[str]] = {}
    for guardrail, ratio in canary.tolerated.items():
        name = GUARDRAIL_NAMES[guardrail]
        names_by_ratio.setdefault(ratio, []).append(name[0].lower() + name[1:])
    parts = []
    for ratio, names in sorted(names_by_ratio.items()):
        allowed = "No increase" if ratio == 1.0 else f"At most {format_number(ratio)} times"
        parts.append(f"{allowed}: {', '.join(names)}")
    return f"{'. '.join(parts)}. All compared with the current model."


def _explain_bake(canary: CanaryPolicy) -> str:
    """Explains the comparison after a promotion. A policy without a bake has no comparison."""
    if not canary.bake_s:
        return "After the promotion all traffic goes to the new model; nothing is compared."
    share = format_bps(canary.bake_bps)
    duration = labels.span(canary.bake_s)
    return (
        f"For {duration} after the promotion, the former model keeps {share}, for comparison."
    )


def _describe_conditions(step: CanaryStep) -> str:
    """Describes the conditions for leaving a step."""
    parts = [f"{step.min_exposures:,} callers"]
    if step.certify:
        parts.append("and shown to do no harm")
    if step.min_s:
        parts.append(f"at least {labels.span(step.min_s)}")
    if step.min_peak_s:
        parts.append(f"at least {labels.span(step.min_peak_s)} of peak hours")
    parts.append(f"pauses for a person after {labels.span(step.deadline_s)}")
    return ", ".join(parts)


CARDS: Final = Cards[PoliciesView, Policy](
    key=lambda policy: f"policy-{policy.name}", parts=_render_card
)
OWN: Final = ResourceList[PoliciesView, Policy](rows=lambda view: view.own_policy, cards=CARDS)
OTHERS: Final = ResourceList[PoliciesView, Policy](
    rows=lambda view: view.other_policies,
    cards=CARDS,
    folded=("other policy", "other policies"),
)
