"""Runs one comparison on a separate database, without a server, as in CI.

It uses the same proposal, plans and gate as a server; only the route exists for this
comparison. It stops as soon as the gate has decided.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.config.model import Settings
from harness.frame.errors import NotFound, SpendingPaused
from harness.frame.people.access import Actor
from harness.frame.suggestions import did_you_mean
from harness.gate.suite_plan import Claim, SuiteRole
from harness.operations import control_jobs
from harness.proposals import submission
from harness.proposals.eval_queue import load_queue, needed_runs
from harness.proposals.submission import ProposalRequest
from harness.providers.target import Target
from harness.registry import targets
from harness.routes import routes
from harness.routing.context import Context
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.table import RouteSettings, RouteSuite

LONGEST_PATIENCE_S: Final = 60.0
ROUTE: Final = "gate-run"
DECIDED_PHASES: Final = frozenset(ProposalPhase) - {
    ProposalPhase.PROPOSED,
    ProposalPhase.EVALUATING,
}


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """The question of one comparison. margin, min_saving and claim: None for the
    policy's own.
    """

    suites: Sequence[str]  # the primary suite comes first
    incumbent: Target
    candidate: Target
    policy: str = "default"
    claim: Claim | None = None
    margin: float | None = None
    reason: str = ""
    guards: Sequence[str] = ()  # names of guard suites
    min_saving: float | None = None


def register_comparison(
    ctx: Context, actor: Actor, settings: Settings, question: ComparisonRequest
) -> Proposal:
    """Registers the file's providers, a route only for this comparison, and its proposal.
    Raises the errors of `routes.create_route` and `submission.create_proposal`.
    """
    for provider in settings.providers.values():
        targets.put_provider(ctx, actor, provider)
    for seed in (question.incumbent, question.candidate):
        _check_provider(settings, seed)
    incumbent, candidate = (
        targets.add_target(ctx, actor, seed)
        for seed in (question.incumbent, question.candidate)
    )
    primary, *others = question.suites
    suites = (
        RouteSuite(primary, SuiteRole.PRIMARY),
        *(RouteSuite(suite, SuiteRole.REQUIRED) for suite in others),
        *(RouteSuite(guard, SuiteRole.GUARD) for guard in question.guards),
    )
    route = RouteSettings(policy=question.policy, suites=suites)
    routes.create_route(ctx, actor, ROUTE, incumbent.id, settings=route)
    request = ProposalRequest(
        ROUTE,
        candidate.id,
        question.reason,
        question.claim,
        question.margin,
        min_saving=question.min_saving,
    )
    return submission.create_proposal(ctx, actor, request)


def _check_provider(settings: Settings, seed: Target) -> None:
    """Raises NotFound for a provider that the configuration file lacks."""
    if seed.provider not in settings.providers:
        hint = did_you_mean(seed.provider, settings.providers, otherwise=".")
        file = settings.source or "swapgate.yaml"
        raise NotFound(
            f"{file} has no provider {seed.provider!r}{hint} This command reads no database: "
            "add the provider under `providers:` in that file"
        )


def without_patience(ctx: Context, *, unreadable_is_wrong: bool = False) -> Context:
    """Limits the patience of all policies to one minute, because a person or CI waits.

    unreadable_is_wrong: overrides the policies: unreadable answers count as wrong.
    """
    policies = {
        name: replace(
            policy,
            gate=replace(
                policy.gate,
                infra_patience_s=min(policy.gate.infra_patience_s, LONGEST_PATIENCE_S),
                unreadable_is_wrong=unreadable_is_wrong or policy.gate.unreadable_is_wrong,
            ),
        )
        for name, policy in ctx.policies.items()
    }
    return replace(ctx, policies=policies)


def run_until_decided(
    ctx: Context, proposal: str, pause: Callable[[Proposal], bool]
) -> Proposal:
    """Runs the reconcile loop until the gate decides. Returns the proposal.

    pause: waits after each iteration; False gives up. Raises SpendingPaused at the monthly cap,
    because the cap cannot be raised during the run.
    """
    while True:
        control_jobs.reconcile(ctx)
        found = submission.get_proposal(ctx, proposal)
        if found.phase in DECIDED_PHASES:
            return found
        if unpaid := _find_unpaid(ctx, found):
            raise SpendingPaused(f"not measured: {unpaid}")
        if not pause(found):
            return found


def _find_unpaid(ctx: Context, proposal: Proposal) -> str:
    """Returns why the cap stops all waiting runs of the proposal; empty if one of them
    may run.
    """
    if ctx.monthly_cap_usd is None:
        return ""
    queue = load_queue(ctx)
    waiting = [queue[run] for run in sorted(needed_runs([proposal])) if run in queue]
    unpaid = next((queued.unpaid for queued in waiting if queued.unpaid), "")
    return unpaid if all(queued.unpaid for queued in waiting) else ""
