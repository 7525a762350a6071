"""Compares a proposal with its route's rules: settings that another person must approve, and
differences from the route's present rules.

Rules may change while a proposal is open. A person may also register a proposal on the command
line with another configuration, but only the control plane's configuration counts. The
functions only find and describe differences: `submission` stores them as the proposal's
`widened`, and `harness.canary` refuses a proposal that no longer follows its route. ADR 22
explains why the proposer does not choose the rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any, Final

from harness.evals import proof_validity
from harness.frame.errors import InputError, NotFound, ProofRefused
from harness.frame.formatting import format_usd
from harness.frame.people import four_eyes
from harness.frame.people.access import Actor, Role, fold_name
from harness.frame.people.records import Principals
from harness.frame.records.transaction import Transaction
from harness.gate.offline.format_rules import format_prompts
from harness.gate.policy import GatePolicy, Policy
from harness.gate.suite_plan import SuitePin, SuiteRole
from harness.proposals import judge as canary_judge
from harness.proposals.context import ProposalsContext
from harness.proposals.registration.route_risk import WINDOW
from harness.providers.records import Providers, Targets
from harness.providers.target import Target
from harness.providers.target_price import describe_missing, list_unpriced
from harness.routing.control import data_class_checks, routes, vector_checks
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import Suites
from harness.routing.route_changes import CHANGE_KINDS, RestoreIncumbent
from harness.routing.route_settings import RouteSuite
from harness.routing.table import Route, RouteRecord

OTHER_RULES: Final = "registered under other rules than the route has"


def list_rule_differences(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> list[str]:
    """Lists the route's rules that a proposal weakens, except rules that were registered for a
    second person's approval. Raises NotFound if the policy no longer exists.
    """
    route = routes.require_route(tx, proposal.route)
    pins = [Suites(tx).get(plan.suite_digest) for plan in proposal.plans]
    proposer = Actor(
        proposal.proposer,
        Role.PROPOSER,
        proposal.proposer_principal,
        proposal.proposer_key,
    )
    candidate = Targets(tx).all()[proposal.candidate]
    reasons = find_second_person_reasons(ctx, tx, route, pins, candidate, proposer)
    registered = proposal.widened.items()
    new_reasons = {
        name: change for name, change in reasons.items() if (name, change) not in registered
    }
    incumbent = Targets(tx).all()[route.incumbent]
    vector_refusal = vector_checks.find_other_vectors(
        ctx, tx, route.name, route.settings, incumbent, [candidate]
    )
    return [
        *filter(None, [vector_refusal]),
        *_list_policy_differences(ctx, route, proposal),
        *describe_second_person_reasons(new_reasons),
        *_list_suite_differences(route, proposal),
    ]


def require_current_rules(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> None:
    """Requires that the proposal follows its route's present rules. Raises ProofRefused.

    The canary calls it before it opens, because rules may have changed since the registration.
    """
    if rule_differences := list_rule_differences(ctx, tx, proposal):
        raise ProofRefused(
            f"{proposal.id}: {OTHER_RULES} ({'; '.join(rule_differences)}); propose again"
        )


def _list_suite_differences(route: Route, proposal: Proposal) -> Iterator[str]:
    """Yields differences between the route's suites and the proposal's: missing, or another
    role or weight. A suite that only the proposal has must not be primary.
    """
    plans = {plan.suite: plan for plan in proposal.plans}
    for suite in route.settings.suites:
        plan = plans.pop(suite.suite, None)
        if plan is None:
            yield f"suite {suite.suite}: {suite.role.value} on the route, but not proposed"
        elif plan.role is not suite.role:
            yield f"suite {suite.suite}: {suite.role.value} on the route, not {plan.role.value}"
        elif plan.combine and plan.weight != suite.weight:
            weights = f"{suite.weight:g} on the route, not {plan.weight:g}"
            yield f"suite {suite.suite}: weighs {weights}"
    for plan in plans.values():
        if plan.role is SuiteRole.PRIMARY:
            yield f"suite {plan.suite}: primary in the proposal, but no longer on the route"


ADDENDUM: Final = "prompt addendum"
MAX_SHOWN_ADDENDUM: Final = 2000  # characters of an addendum

# Suite → its role on a route, and its weight.
Parts = Mapping[str, tuple[SuiteRole, float]]

# Changes (before, after) to a stricter role; None for a suite that is not on the route.
STRICTER: Final = frozenset(
    {
        (None, SuiteRole.REQUIRED),
        (None, SuiteRole.GUARD),
        (SuiteRole.GUARD, SuiteRole.REQUIRED),
    }
)


def list_choices_beyond(rules: GatePolicy, chosen: GatePolicy) -> list[str]:
    """Lists a proposer's choices that the route's policy does not allow, as text.

    Args:
        rules: the policy's gate.
        chosen: the same with the proposer's claim, margin and saving.
    """
    beyond = []
    if chosen.claim not in rules.allowed_claims:
        allowed = ", ".join(rules.allowed_claims)
        beyond.append(f"the claim {chosen.claim.value}, but the route allows only {allowed}")
    if chosen.margin > rules.largest_margin:
        beyond.append(f"a margin of {chosen.margin:g}, above {rules.largest_margin:g}")
    if chosen.min_saving < rules.min_saving:
        beyond.append(f"a saving of {chosen.min_saving:g}, below {rules.min_saving:g}")
    return beyond


def _list_policy_differences(
    ctx: ProposalsContext,
    route: Route,
    proposal: Proposal,
) -> Iterator[str]:
    """Yields differences between the route's policy and the policy of the registration.

    Claim, margin and saving are the proposer's choices, so only their limits count.
    """
    rules = ctx.policy(route.settings.policy)
    registered = proposal.policy
    chosen = replace(
        rules.gate,
        claim=registered.gate.claim,
        margin=registered.gate.margin,
        min_saving=registered.gate.min_saving,
    )
    if registered != replace(rules, gate=chosen):
        yield (
            f"the policy {rules.name} has other rules than {registered.name} had at "
            "registration"
        )
    yield from list_choices_beyond(rules.gate, registered.gate)


def find_second_person_reasons(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    pins: Sequence[SuitePin],
    candidate: Target | None,
    proposer: Actor | None,
) -> dict[str, Any]:
    """Finds settings that another person than the proposer must approve, under any policy:
    suites that no person accepted, an incumbent that the proposer restored, added prompt text.

    Each of these could make a worse candidate pass. Returns the changes by name, in the form
    that proposals store as `widened`: with the route's value, the proposed value, and details.

    Args:
        pins: of the route's suites.
        candidate: None if unknown.
        proposer: None if unknown.
    """
    reasons = _find_other_suites(ctx, tx, route, pins, proposer)
    if proposer is not None:
        reasons |= _find_restored_incumbent(tx, route, proposer, ctx.clock.now())
    if candidate is not None:
        reasons |= _find_added_prompt(Targets(tx).all()[route.incumbent], candidate)
    return reasons


def _find_other_suites(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    pins: Sequence[SuitePin],
    proposer: Actor | None,
) -> dict[str, Any]:
    """Finds suites that differ from the suites that a person accepted for this route.

    The newer of two versions counts as accepted: the suites of the last admitted proposal, or
    the route's suites as created or as set by a person other than the proposer. Without either,
    the first proposal of a route sets the standard.

    Args:
        proposer: None if unknown; then the suites of any person count.
    """
    history = _history_since_suites_set(ctx, tx, route, proposer)
    last_admitted = next(iter(Proposals(tx).approved_or_started(route.name)), None)
    reasons: dict[str, Any] = {}
    for pin in pins:
        accepted = _accepted_digest(tx, history, pin.name)
        if accepted and pin.digest != accepted:
            reasons[f"suite {pin.name}"] = {
                "route": accepted,
                "proposed": pin.digest,
                "changed": list_changed_pieces(tx, accepted, pin),
            }
    earlier_parts = _suite_parts(history[0].route.settings.suites)
    if last_admitted is not None and last_admitted.created_at >= history[0].at:
        earlier_parts = {plan.suite: (plan.role, plan.weight) for plan in last_admitted.plans}
    for name, (old, new) in _find_less_strict_suites(
        earlier_parts, _suite_parts(route.settings.suites)
    ).items():
        entry = reasons.setdefault(
            f"suite {name}",
            {
                "route": old,
                "proposed": new,
                "changed": [],
            },
        )
        entry["changed"] = [f"{old} then and {new} now", *entry["changed"]]
    return reasons


def _history_since_suites_set(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    proposer: Actor | None,
) -> Sequence[RouteRecord]:
    """Returns the route's history, newest first, beginning with the version in which an
    authorised person last set the suites. If the policy requires two people, the proposer has
    no such right, except by creating the route.
    """
    history = Routing(tx).history(route.name)
    any_person_counts = proposer is None or ctx.policy(route.settings.policy).self_approval
    for number, (newer, older) in enumerate(pairwise(history)):
        if _suite_content(newer) == _suite_content(older):
            continue
        if (
            any_person_counts
            or proposer is None
            or four_eyes.is_other_person(tx, newer.actor, proposer)
        ):
            return history[number:]
    return history[-1:]


def _suite_content(record: RouteRecord) -> list[tuple[RouteSuite, str]]:
    """Returns the suites' settings and digests, which decide whether a version set the
    suites.
    """
    return [(suite, suite.digest) for suite in record.route.settings.suites]


def _accepted_digest(
    tx: Transaction,
    history: Sequence[RouteRecord],
    suite: str,
) -> str:
    """Returns the suite's accepted digest: the newer of the last admitted proposal's and the
    route's; empty without both.
    """
    admitted = (
        (proposal.created_at, plan.suite_digest)
        for proposal in Proposals(tx).approved_or_started(history[0].route.name)
        for plan in proposal.plans
        if plan.suite == suite
    )
    candidates = [*islice(admitted, 1), *_content_since(history, suite)]
    return max(candidates, key=itemgetter(0), default=(None, ""))[1]


def _content_since(history: Sequence[RouteRecord], suite: str) -> list[tuple[datetime, str]]:
    """Returns the time at which the suite's present content appeared in the settings, and its
    digest.
    """
    appeared: list[tuple[datetime, str]] = []
    for record in history:
        suites = record.route.settings.suites
        digest = next(
            (route_suite.digest for route_suite in suites if route_suite.suite == suite),
            "",
        )
        if not digest or (appeared and digest != appeared[0][1]):
            break
        appeared = [(record.at, digest)]
    return appeared


def _suite_parts(suites: Sequence[RouteSuite]) -> Parts:
    """Returns each suite's role and weight.

    Weights count only among several primary suites. The function sets all other weights to 1.0,
    so that they do not differ.
    """
    has_several_primaries = sum(suite.role is SuiteRole.PRIMARY for suite in suites) > 1
    return {
        suite.suite: (
            suite.role,
            suite.weight if has_several_primaries and suite.role is SuiteRole.PRIMARY else 1.0,
        )
        for suite in suites
    }


def _find_less_strict_suites(old_parts: Parts, new_parts: Parts) -> dict[str, tuple[str, str]]:
    """Returns the suites with a less strict role or weight than before, as text.

    Each change of role or weight is less strict, except the changes in STRICTER. Empty without
    earlier suites, because the first suites of a route set the standard. Values: (before, now).
    """
    if not old_parts:
        return {}
    pairs = {
        name: (old_parts.get(name), new_parts.get(name)) for name in {**old_parts, **new_parts}
    }
    return {
        name: (_describe_part(old), _describe_part(new))
        for name, (old, new) in pairs.items()
        if old != new and (old and old[0], new and new[0]) not in STRICTER
    }


def _describe_part(part: tuple[SuiteRole, float] | None) -> str:
    """Writes a role and, if it is not 1, its weight."""
    if part is None:
        return "none"
    role, weight = part
    return role.value if weight == 1.0 else f"{role.value} with weight {weight:g}"


def list_changed_pieces(
    tx: Transaction,
    accepted: str,
    now: SuitePin,
) -> list[str]:
    """Lists the pieces of a suite that differ from its accepted version."""
    try:
        return list(proof_validity.list_pin_differences(Suites(tx).get(accepted), now))
    except NotFound:
        return ["its content"]


def _find_restored_incumbent(
    tx: Transaction,
    route: Route,
    proposer: Actor,
    now: datetime,
) -> dict[str, Any]:
    """Reports an incumbent that the proposer restored in the last 90 days, because the proposer
    then chose the model for the comparison, perhaps a weaker one.
    """
    names = Targets(tx).all()
    for newer, older in pairwise(Routing(tx).history(route.name)):
        if newer.route.incumbent == older.route.incumbent:
            continue
        principal = Principals(tx).named(newer.actor)
        is_proposer = fold_name(newer.actor) == fold_name(proposer.name) or (
            principal is not None and principal.id == proposer.principal
        )
        if (
            newer.kind != CHANGE_KINDS[RestoreIncumbent]
            or newer.at < now - WINDOW
            or not is_proposer
        ):
            return {}
        old_name = names[older.route.incumbent].name
        new_name = names[newer.route.incumbent].name
        return {
            "incumbent": {
                "route": old_name,
                "proposed": new_name,
                "reason": newer.reason,
            }
        }
    return {}


def _find_added_prompt(incumbent: Target, candidate: Target) -> dict[str, Any]:
    """Finds text that the candidate adds to every prompt, except the incumbent's text and
    remedies that the gate suggests.
    """
    added = candidate.request_patch.prompt_addendum
    remaining = added
    for allowed_text in (
        incumbent.request_patch.prompt_addendum,
        *format_prompts(),
    ):
        remaining = remaining.replace(allowed_text, "") if allowed_text else remaining
    if not remaining.strip():
        return {}
    incumbent_text = incumbent.request_patch.prompt_addendum
    return {
        ADDENDUM: {
            "route": incumbent_text[:MAX_SHOWN_ADDENDUM],
            "proposed": added[:MAX_SHOWN_ADDENDUM],
            "length": len(added),
        }
    }


def describe_second_person_reasons(reasons: Mapping[str, Any]) -> list[str]:
    """Writes one sentence for each setting of a proposal's `widened`."""
    return [f"{name}: {_describe_reason(name, change)}" for name, change in reasons.items()]


def _describe_reason(name: str, difference: Mapping[str, Any]) -> str:
    """Writes the change without its name.

    Args:
        difference: a value of `find_second_person_reasons`.
    """
    if name == "incumbent":
        return (
            f"{difference['proposed']}, which the proposer restored instead of "
            f"{difference['route']} ({difference['reason']})"
        )
    if name == ADDENDUM:
        length_text = (
            f" … ({difference['length']} characters)"
            if difference["length"] > MAX_SHOWN_ADDENDUM
            else ""
        )
        added = f"{difference['proposed']!r}{length_text}"
        return f"adds text to every prompt, which may contain answers: {added}"
    return (
        f"differs from the suite accepted for this route ({'; '.join(difference['changed'])})"
    )


def check_judge(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    policy: Policy,
) -> None:
    """Checks a policy's judge before any cost: its settings, and whether its provider may see
    the route's data class.

    Raises InputError for invalid settings and for an unknown price, without which `max_usd`
    could not limit the cost. Raises NotAllowed if the provider may not see the data class.
    """
    canary_judge.check_judge(policy.canary)
    judge = policy.canary.judge
    if judge is None:
        return
    target = Target.from_name(judge.model)
    data_class_checks.check_targets(ctx, route.settings, [target], route=route.name)
    if list_unpriced(Providers(tx).all(), [target.name]):
        raise InputError(
            f"policy {policy.name!r} lets {target.name} judge its canaries, for up to "
            f"{format_usd(judge.max_usd)}, but {describe_missing(target.name)}"
        )
