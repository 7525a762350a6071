"""Assesses whether a verdict is still valid: it has not expired, its suites, models and
providers are as measured, and its candidate may see the route's class of data. These conditions
change over time, so the database cannot check them.

This module does not recompute scores: `harness.proposals.recomputation` does. It decides no
move: `harness.canary.decision` reacts to a verdict that no longer holds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from harness.evals.context import EvalsContext
from harness.frame.errors import NotFound, ProofRefused
from harness.frame.plain_data import from_plain
from harness.frame.records.transaction import Transaction
from harness.gate.offline.verdicts import run_ids, served_from_json
from harness.gate.pins import Sighting, find_replacement, named_models
from harness.gate.suite_plan import SuitePin, SuitePlan
from harness.gate.verdict import Verdict
from harness.providers.records import Providers, Sightings, Targets
from harness.providers.registry import targets
from harness.routing.control import data_class_checks
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns, Suites


class ProofState(StrEnum):
    """Whether a verdict still counts as proof."""

    HOLDS = "holds"
    EXPIRED = "expired"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class ProofValidity:
    """A verdict's validity at one moment, with the reason."""

    proof: ProofState
    why: str = ""  # changes since the verdict, or its expiry; empty if it is valid

    @property
    def holds(self) -> bool:
        return self.proof is ProofState.HOLDS

    @property
    def text(self) -> str:
        """The state and its reason, such as `STALE: …`; `holds` for a valid verdict."""
        return f"{self.proof.value.upper()}: {self.why}" if self.why else "holds"

    def describe_end(self, proposal: Proposal) -> str:
        """Describes the end of a proposal that waits with an invalid verdict; else empty."""
        if self.holds or proposal.phase is not ProposalPhase.AWAITING_APPROVAL:
            return ""
        return f"its verdict is {self.text}. Swapproof rejects it; propose again."


def route_time(tx: Transaction, route: str) -> datetime:
    """Returns the time of a route's decisions: now, but never before its newest version.

    Versions are ordered in time. A verdict must be valid at the time of the version that it
    proves. After a clock was set back, the route's time stops until the clock has caught up.
    """
    now = tx.now()
    return max(now, Routing(tx).changed_at(route) or now)


def assess_proof(
    ctx: EvalsContext,
    tx: Transaction,
    verdict: Verdict,
) -> ProofValidity:
    """Assesses a verdict. Reports STALE before EXPIRED, because STALE names the cause. Reloads
    a changed suite.

    Never raises for unreadable inputs: a verdict that cannot be read is STALE.
    """
    plans, reason = _read_plans(verdict)
    if reason:
        return ProofValidity(ProofState.STALE, reason)
    changes = [
        *list_clearance_faults(ctx, tx, verdict),
        *list_moved_providers(ctx, tx, verdict),
        *_describe_suite_changes(ctx, tx, plans),
        *_describe_served_changes(tx, verdict, plans),
    ]
    if changes:
        return ProofValidity(ProofState.STALE, "; ".join(changes))
    if verdict.expires_at <= route_time(tx, verdict.route):
        return ProofValidity(
            ProofState.EXPIRED,
            f"it was valid until {_format_time(verdict.expires_at)}",
        )
    return ProofValidity(ProofState.HOLDS)


def require_proof(
    ctx: EvalsContext,
    tx: Transaction,
    verdict: Verdict,
) -> None:
    """Raises ProofRefused, with the reason, if the verdict is no longer valid."""
    validity = assess_proof(ctx, tx, verdict)
    if not validity.holds:
        raise ProofRefused(
            f"verdict {verdict.id} is {validity.proof.value}: {validity.why}; propose again"
        )


def find_unreadable(verdict: Verdict) -> str:
    """Explains why the gate cannot have written a verdict's inputs; empty if it can."""
    return _read_plans(verdict)[1]


def _read_plans(verdict: Verdict) -> tuple[Sequence[SuitePlan], str]:
    """Returns the verdict's plans, or an empty list and why its inputs cannot be read."""
    try:
        plans = [*_parse_plans(verdict)]
        for plan in plans:
            served_from_json(verdict.inputs, plan.suite)
            run_ids(verdict.inputs, plan.suite)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return (
            [],
            f"its inputs cannot be read ({type(error).__name__}: {error})",
        )
    return plans, ""


def list_clearance_faults(
    ctx: EvalsContext,
    tx: Transaction,
    verdict: Verdict,
) -> list[str]:
    """Lists why the candidate's provider may not see the route's traffic; empty if it may."""
    route = Routing(tx).route(verdict.route)
    candidate = Targets(tx).get(verdict.candidate)
    if route is None or candidate is None:
        return []
    refusal = data_class_checks.find_refusal(ctx, route.settings, candidate, route=route.name)
    return [refusal] if refusal else []


def has_moved_providers(tx: Transaction) -> bool:
    """Tells whether any provider was ever moved; if not, callers need not read verdicts."""
    return any(provider.moved for provider in Providers(tx).all().values())


def list_moved_providers(
    ctx: EvalsContext,
    tx: Transaction,
    verdict: Verdict,
) -> list[str]:
    """Describes the providers of arms and judges that moved since the measurement."""
    descriptions: dict[str, str] = {}
    if not has_moved_providers(tx):
        return []
    for plan in _parse_plans(verdict):
        runs = [EvalRuns(tx).get(run) for run in run_ids(verdict.inputs, plan.suite) if run]
        calls = [(run.target, run.created_at) for run in runs]
        calls += [(_find_judge(tx, plan), run.created_at) for run in runs]
        for target, called_at in calls:
            provider = targets.find_move_since(ctx, tx, target, called_at)
            if provider is not None and provider.moved is not None:
                descriptions[provider.name] = (
                    f"provider {provider.name} was moved by {provider.moved.by} at "
                    f"{_format_time(provider.moved.at)}, after the measurement"
                )
    return list(descriptions.values())


def find_replaced_candidate(tx: Transaction, verdict: Verdict) -> Sighting | None:
    """Finds an unmeasured model that now answers under the candidate's name, or None."""
    for plan in _parse_plans(verdict):
        measured_models = served_from_json(verdict.inputs, plan.suite).candidate
        sighting = Sightings(tx).for_target(verdict.candidate)
        replacement = find_replacement(
            measured_models,
            sighting,
            plan.served_pin,
            decided_at=verdict.decided_at,
        )
        if replacement is not None:
            return replacement
    return None


def _parse_plans(verdict: Verdict) -> Iterator[SuitePlan]:
    """Yields the plans in a verdict's inputs. Raises TypeError, LookupError, ValueError."""
    stored = verdict.inputs["plans"]
    if not isinstance(stored, list | tuple):
        raise TypeError("its plans are not a list")
    yield from (from_plain(SuitePlan, plan) for plan in stored)


def _describe_suite_changes(
    ctx: EvalsContext,
    tx: Transaction,
    plans: Iterable[SuitePlan],
) -> Iterator[str]:
    """Yields a text for each suite that changed since its registration."""
    for plan in plans:
        if change := find_suite_change(ctx, tx, plan):
            yield change.text


class SuiteChange(NamedTuple):
    """A suite's change since its registration. is_loaded: False if the suite cannot be loaded,
    so that its change is unknown.
    """

    suite: str
    text: str
    is_loaded: bool


def find_suite_change(
    ctx: EvalsContext,
    tx: Transaction,
    plan: SuitePlan,
) -> SuiteChange | None:
    """Finds the change of a suite since its registration; None without a change."""
    try:
        present_pin = ctx.suites.pin(plan.suite)
    except Exception as error:  # noqa: BLE001 - a suite may be the user's Python file
        text = f"{plan.suite} can no longer be loaded ({error})"
        return SuiteChange(plan.suite, text, is_loaded=False)
    if present_pin.digest == plan.suite_digest:
        return None
    try:
        differences = ", ".join(
            list_pin_differences(Suites(tx).get(plan.suite_digest), present_pin)
        )
    except NotFound:
        differences = ""
    text = f"{plan.suite} changed" + (f" ({differences})" if differences else "")
    return SuiteChange(plan.suite, text, is_loaded=True)


def list_pin_differences(before: SuitePin, now: SuitePin) -> Iterator[str]:
    """Yields the pieces of the pin that differ. Stored reasons contain these texts."""
    if before.data_sha256 != now.data_sha256:
        yield f"data, {before.data_sha256[:12]} then and {now.data_sha256[:12]} now"
    if before.scorer_alone != now.scorer_alone:
        yield f"scorer, {before.scorer_alone} then and {now.scorer_alone} now"
    if before.judge_pin != now.judge_pin:
        yield f"judge, {before.judge_pin or 'none'} then and {now.judge_pin or 'none'} now"
    if before.template != now.template:
        yield f"prompt or settings, {before.template} then and {now.template} now"
    if before.version != now.version:
        yield f"version, {before.version} then and {now.version} now"


def _describe_served_changes(
    tx: Transaction,
    verdict: Verdict,
    plans: Iterable[SuitePlan],
) -> Iterator[str]:
    """Yields a text for each arm or judge whose provider now serves an unmeasured model."""
    for plan in plans:
        served = served_from_json(verdict.inputs, plan.suite)
        for target, measured in (
            (verdict.incumbent, served.incumbent),
            (verdict.candidate, served.candidate),
            (_find_judge(tx, plan), served.judge),
        ):
            replacement = find_replacement(
                measured,
                Sightings(tx).for_target(target),
                plan.served_pin,
                decided_at=verdict.decided_at,
            )
            if replacement is None:
                continue
            stored_target = Targets(tx).get(target)
            name = stored_target.name if stored_target else f"the judge {target}"
            measured_names = ", ".join(model.label for model in named_models(measured))
            yield (
                f"the provider of {name} serves {replacement.served.label} (last seen "
                f"{_format_time(replacement.last_at)}), but {measured_names} was measured on "
                f"{plan.suite}"
            )


def _find_judge(tx: Transaction, plan: SuitePlan) -> str:
    """Returns the target id of the suite's judge; empty without a judge or a stored pin."""
    try:
        return Suites(tx).get(plan.suite_digest).judge
    except NotFound:
        return ""


def _format_time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
