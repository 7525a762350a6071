"""Runs one comparison on a separate database, without a server, as in CI.

The comparison uses the same proposal, plans and gate as a server. Its route exists only for the
comparison. It stops as soon as the gate has decided.
"""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.app.configuration.model import Settings
from harness.app.secret_files import create_private, wait_for_content
from harness.frame.errors import InputError, NotFound, SpendingPaused
from harness.frame.people.access import Actor
from harness.frame.plain_data import digest
from harness.frame.suggestions import did_you_mean
from harness.gate.order_seeds import SEED_BYTES, OrderSeed, SeedOrigin
from harness.gate.suite_plan import Claim, SuiteRole
from harness.operations import control_jobs
from harness.operations.context import Context
from harness.proposals import submission
from harness.proposals.eval_queue import list_needed_runs, load_queue
from harness.proposals.submission import ProposalRequest
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.route_settings import RouteSettings, RouteSuite

FOLDER: Final = Path(".swapproof-try")  # in the working folder, out of version control
MAX_PATIENCE_S: Final = 60.0
ROUTE: Final = "gate-run"
DECIDED_PHASES: Final = frozenset(ProposalPhase) - {
    ProposalPhase.PROPOSED,
    ProposalPhase.EVALUATING,
}


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """The request for one comparison. margin, min_saving and claim: None for the policy's
    values.
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


@dataclass(frozen=True, slots=True)
class RunnerSeeds:
    """Draws 128 random bits for each content of a suite, and stores them before the first
    answer. A rerun on the same suite and models uses them again while `folder` exists, so that
    reruns cannot choose among seeds.
    """

    folder: Path
    models: tuple[str, str]  # names of incumbent and candidate

    def seed_of(self, suite_digest: str) -> OrderSeed:
        """Raises InputError for a file that contains no seed, or cannot be written."""
        file = self.folder / digest([suite_digest, *self.models])[:24]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            create_private(file, secrets.token_hex(SEED_BYTES))
            wait_for_content(file)
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{file}: the seed of the items' order cannot be kept there ({error}): run in "
                "a folder that you can write"
            ) from None
        if not _SEED_PATTERN.fullmatch(text):
            raise InputError(f"{file} contains no seed of an order: delete it and run again")
        return OrderSeed(int(text, 16), SeedOrigin.RUNNER)


_SEED_PATTERN: Final = re.compile(rf"[0-9a-f]{{{2 * SEED_BYTES}}}")


def open_runner_seeds(incumbent: Target, candidate: Target) -> RunnerSeeds:
    """Keeps seeds in FOLDER, which git ignores. Raises InputError if it is not writable."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{FOLDER.resolve()} cannot be written ({error.strerror}): run in a folder that "
            "you can write, because the seed of the items' order is kept there"
        ) from None
    return RunnerSeeds(FOLDER / "seeds", (incumbent.name, candidate.name))


def register_comparison(
    ctx: Context,
    actor: Actor,
    settings: Settings,
    question: ComparisonRequest,
) -> Proposal:
    """Registers the file's providers, a route for this comparison, and a proposal. Raises the
    errors of `routes.create_route` and `submission.create_proposal`.
    """
    for provider in settings.providers.values():
        targets.put_provider(ctx, actor, provider)
    for target in (question.incumbent, question.candidate):
        _check_provider(settings, target)
    incumbent = targets.add_target(ctx, actor, question.incumbent)
    candidate = targets.add_target(ctx, actor, question.candidate)
    primary, *other_suites = question.suites
    suites = (
        RouteSuite(primary, SuiteRole.PRIMARY),
        *(RouteSuite(suite, SuiteRole.REQUIRED) for suite in other_suites),
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


def _check_provider(settings: Settings, target: Target) -> None:
    """Raises NotFound for a provider that the configuration file lacks."""
    if target.provider not in settings.providers:
        hint = did_you_mean(target.provider, settings.providers, otherwise=".")
        file = settings.source or "swapproof.yaml"
        raise NotFound(
            f"{file} has no provider {target.provider!r}{hint} This command reads no database: "
            "add the provider under `providers:` in that file"
        )


def build_comparison_context(
    ctx: Context, seeds: RunnerSeeds, *, unreadable_is_wrong: bool = False
) -> Context:
    """Builds a context that draws the order of items by `seeds`. It limits the patience of all
    policies to MAX_PATIENCE_S, because a person or CI waits.

    Args:
        unreadable_is_wrong: whether unreadable answers count as wrong, whatever the policies
            say.
    """
    policies = {
        name: replace(
            policy,
            gate=replace(
                policy.gate,
                infra_patience_s=min(policy.gate.infra_patience_s, MAX_PATIENCE_S),
                unreadable_is_wrong=unreadable_is_wrong or policy.gate.unreadable_is_wrong,
            ),
        )
        for name, policy in ctx.policies.items()
    }
    return replace(ctx, policies=policies, order_seeds=seeds)


def run_until_decided(
    ctx: Context,
    proposal: str,
    pause: Callable[[Proposal], bool],
) -> Proposal:
    """Runs the reconcile loop until the gate decides. Returns the proposal.

    Args:
        pause: waits after each iteration, and returns False to give up.

    Raises SpendingPaused at the monthly cap, because the cap cannot be raised during the run.
    """
    while True:
        control_jobs.reconcile(ctx)
        current = submission.get_proposal(ctx, proposal)
        if current.phase in DECIDED_PHASES:
            return current
        if unpaid := _find_unpaid(ctx, current):
            raise SpendingPaused(f"not measured: {unpaid}")
        if not pause(current):
            return current


def _find_unpaid(ctx: Context, proposal: Proposal) -> str:
    """Returns why the monthly cap stops all waiting runs of the proposal; empty if a run may
    continue.
    """
    if ctx.monthly_cap_usd is None:
        return ""
    queue = load_queue(ctx)
    waiting = [queue[run] for run in sorted(list_needed_runs([proposal])) if run in queue]
    unpaid_reason = next((queued.unpaid for queued in waiting if queued.unpaid), "")
    return unpaid_reason if all(queued.unpaid for queued in waiting) else ""
