"""Writes what each policy demands of a candidate and of its canary in plain words, and what it
means for one route in items, money and time.
"""

from dashboard.text import html, labels
from dashboard.text.html import escape
from harness.control.proposals.estimate import PolicyForecast
from harness.domain.evals.suite_plan import Claim
from harness.domain.formatting import (
    format_bps,
    format_estimate,
    format_number,
    format_percent,
    format_score,
)
from harness.domain.proposals.policy import (
    CanaryPolicy,
    CanaryStep,
    ChangeReferenceRule,
    GatePolicy,
    Policy,
    PromotionMode,
)
from harness.gate.planning.multiplicity import ALL_LOOKS
from harness.gate.text import explain


def summary(policy: Policy) -> str:
    """Renders what the policy demands, in rows of a name and a sentence."""
    rows = (
        ("To pass", _claim(policy.gate)),
        ("Wrong passes", _risk(policy.gate)),
        ("Items", _items(policy.gate)),
        ("Money", _money(policy)),
        ("Approval", _approval(policy)),
        ("Proof", f"A verdict is proof for {labels.span(policy.gate.verdict_ttl_s)}."),
        ("Canary", _canary(policy.canary)),
        ("Guarded by", _guardrails(policy.canary)),
        ("Afterwards", _bake(policy.canary)),
    )
    return html.facts([(name, escape(words)) for name, words in rows])


def _claim(gate: GatePolicy) -> str:
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
    others = [labels.CLAIMS[c] for c in gate.allowed_claims if c is not gate.claim]
    if others:
        largest = f"{format_score(gate.largest_margin, None)} points"
        words += (
            f" A proposal may claim “{'” or “'.join(others)}” instead, with an allowed loss of "
            f"up to {largest}."
        )
    return words


def _risk(gate: GatePolicy) -> str:
    chance = format_score(gate.alpha, None)
    budget = ""
    if gate.alpha_budget is not None:
        most = format_score(gate.alpha_budget, None)
        budget = f" All candidates of a route in 90 days together: at most {most} in 100."
    return (
        f"Of 100 candidates that do not deserve it, at most {chance} pass by luck."
        f" Proposed again and again, at most {format_score(gate.alpha * ALL_LOOKS, None)} do."
        f"{budget}"
    )


def _items(gate: GatePolicy) -> str:
    amount = (
        "All items of each suite are"
        if gate.n_max is None
        else f"Up to {gate.n_max:,} items of each suite are"
    )
    times = "once" if gate.epochs == 1 else f"{gate.epochs:,} times"
    return f"{amount} asked {times} of both models; it ends earlier where the result is clear."


def _money(policy: Policy) -> str:
    gate = policy.gate
    limits = []
    if gate.max_cost_usd is not None:
        limits.append(labels.usd(gate.max_cost_usd))
    if gate.max_tokens is not None:
        limits.append(labels.plural(gate.max_tokens, "token"))
    words = (
        f"An eval run ends at {' or '.join(limits)}."
        if limits
        else "An eval run has no limit of its own: see below what a swap would take."
    )
    shadow = policy.canary.shadow
    if shadow is not None:
        words += f" The shadow may cost {labels.usd(shadow.max_cost_usd)}."
    judge = policy.canary.judge
    if judge is not None:
        words += f" The canary's judge may cost {labels.usd(judge.max_usd)} a canary."
    return words


def _approval(policy: Policy) -> str:
    if policy.change_reference is ChangeReferenceRule.REQUIRED:
        return f"{_approver(policy)} It is made under a change request, which somebody names."
    return _approver(policy)


def _approver(policy: Policy) -> str:
    if policy.promotion is PromotionMode.AUTOMATIC:
        return "Nobody needs to approve: a candidate that passed goes to its canary at once."
    who = "A person" if policy.self_approval else "A person other than the proposer"
    wait = labels.span(policy.approval_ttl_s)
    return f"{who} approves before the canary starts, within {wait}; else the proposal expires."


def _canary(canary: CanaryPolicy) -> str:
    words = ""
    if canary.shadow is not None:
        share = format_bps(canary.shadow.share_bps)
        words = (
            f"First a shadow: {share} of the callers' requests go to both models until "
            f"{canary.shadow.min_pairs:,} pairs are answered; users get the current model's. "
        )
    alarm = format_score(canary.alpha + canary.local_alpha, None)
    return (
        f"{words}It is rolled back by itself as soon as harm is shown. Of 100 canaries that do "
        f"no harm, at most {alarm} are rolled back. It counts callers."
    )


def _guardrails(canary: CanaryPolicy) -> str:
    grouped: dict[float, list[str]] = {}
    for guardrail, ratio in canary.tolerated.items():
        name = explain.GUARDRAIL_NAMES[guardrail]
        grouped.setdefault(ratio, []).append(name[0].lower() + name[1:])
    parts = [
        f"{'No more' if ratio == 1.0 else f'At most {format_number(ratio)} times'}: "
        f"{', '.join(names)}"
        for ratio, names in sorted(grouped.items())
    ]
    return f"{'. '.join(parts)}. All compared with the current model."


def _bake(canary: CanaryPolicy) -> str:
    if not canary.bake_s:
        return "After the promotion all traffic goes to the new model; nothing is compared."
    share, time = format_bps(canary.bake_bps), labels.span(canary.bake_s)
    return (
        f"After the promotion the former model keeps {share} for {time}, to be compared with."
    )


def steps(canary: CanaryPolicy) -> str:
    """Renders the shares that the canary gets, with what each step waits for."""
    plan = [(format_bps(step.weight_bps), _needs(step)) for step in canary.steps]
    return html.steps([*plan, ("100 %", "promoted")], None)


def _needs(step: CanaryStep) -> str:
    parts = [f"{step.min_exposures:,} callers"]
    if step.certify:
        parts.append("and shown to do no harm")
    if step.min_s:
        parts.append(f"at least {labels.span(step.min_s)}")
    if step.min_peak_s:
        parts.append(f"at least {labels.span(step.min_peak_s)} of peak hours")
    parts.append(f"a person looks after {labels.span(step.deadline_s)}")
    return ", ".join(parts)


def forecast(found: PolicyForecast) -> str:
    """Renders what a swap on one route takes: items, money, time of both stages."""
    name = found.route.name
    if found.unknown:
        compared = f"Unknown: {found.unknown}"
        money = "unknown"
    else:
        compared = (
            f"Up to {labels.plural(found.items, 'item')} of "
            f"{labels.plural(len(found.suites), 'suite')}: "
            f"{labels.plural(found.answers, 'answer')} in all, of both models"
        )
        money = (
            f"Up to {labels.usd(found.cost_usd)}, if the candidate costs as much as the "
            "current model"
            if found.cost_usd is not None
            else "Unknown: the current model has no answers with a known price on these suites"
        )
    time = (
        f"About {format_estimate(found.duration_s)} of answering"
        if found.duration_s is not None
        else "Unknown: the current model has not answered these suites yet"
    )
    smallest = [
        f"{labels.points(suite.mde).lstrip('+')} points on {suite.plan.suite}"
        for suite in found.suites
    ]
    seen = f"From {', '.join(smallest)}, in 4 of 5 comparisons" if smallest else "Unknown"
    rows = [
        ("Comparison", escape(compared)),
        ("Money", escape(money)),
        ("Time", escape(time)),
        ("Difference seen", escape(seen)),
        ("Canary", html.rich(found.ramp.words)),
    ]
    title = html.section(f"A swap on {name}, under {found.route.settings.policy}")
    return title + html.facts(rows)
