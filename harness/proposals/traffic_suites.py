"""Rules for routes with a suite of traffic: who may judge, how old its records may be, and who
gets its contents.

`evals.traffic` draws such a suite. Its targets are the answers that users got.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final

from harness.evals.settings import whole_suite
from harness.frame.errors import InputError, NotFound, StaleEvidence
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import RECORD_STALE, EvalRun, RunState
from harness.gate.suite_plan import SuitePin
from harness.proposals.context import ProposalsContext
from harness.providers.models.makers import find_shared_maker
from harness.providers.target import Target
from harness.routing.control import data_class_checks
from harness.routing.control.routes import require_route
from harness.routing.proposal import Proposal
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.records.shadow_scores import list_shadow_looks
from harness.routing.route_settings import RouteSettings

MAX_AGE_DAYS: Final = 14  # of a record, when a comparison with it begins
DRAWN: Final = "suite.draw"  # the audit event of a registered draw


def list_further_looks(
    tx: Transaction,
    pin: SuitePin,
    route: str,
    lineage: Collection[str],
    tried: Collection[str],
    proposals: Iterable[Proposal],
    until: Proposal | None,
) -> list[int]:
    """Lists the numbers of the looks at a route's traffic beside its proposals: of shadows with
    a judge, and of other draws that a person tried by hand. Otherwise a person could propose
    the draw that has the best scores.

    Args:
        pin: of the draw.
        lineage: of the candidate.
        tried: its targets that were proposed.
        until: a proposal; later looks do not count.
    """
    before = until.created_at if until else None
    proposed = {plan.suite_digest for proposal in proposals for plan in proposal.plans}
    draws = {
        run.suite_digest
        for run in EvalRuns(tx).of_targets(tried)
        if run.is_manual
        and run.suite_digest not in proposed
        and run.suite_digest != pin.digest
        and (before is None or run.created_at < before)
        and _is_draw(tx, run)
        and EvalRuns(tx).scored(run.id)
    }
    return [*list_shadow_looks(tx, route, lineage, before), *(1 for _ in draws)]


def _is_draw(tx: Transaction, run: EvalRun) -> bool:
    try:
        return Suites(tx).get(run.suite_digest).is_traffic
    except NotFound:
        return False


def list_traffic_suites(ctx: ProposalsContext, settings: RouteSettings) -> Sequence[str]:
    """Lists the route's suites of traffic."""
    names = [suite.suite for suite in settings.suites]
    return [name for name in names if ctx.suites.answers_of(name)]


def check_traffic_suites(
    ctx: ProposalsContext,
    tx: Transaction,
    settings: RouteSettings,
    incumbent: Target,
    candidate: Target,
) -> None:
    """Checks a route's suites of traffic before a comparison.

    Raises StaleEvidence for a draw of another incumbent, with old records or with a changed
    file, InputError for a
    judge that is a compared model or of its maker, and NotAllowed or NotFound for a judge that
    may not see the suite's data.
    """
    for suite in list_traffic_suites(ctx, settings):
        judge = ctx.judges[suite]
        _check_draw(ctx, suite, incumbent)
        _check_registration(ctx, tx, suite)
        if judge.name in (incumbent.name, candidate.name):
            raise InputError(
                f"suite {suite!r}: {judge.name} cannot judge its own answers: draw the suite "
                "again with another --judge"
            )
        fault = find_shared_maker(judge.model, [incumbent.model, candidate.model])
        if fault and not ctx.suites.judge_reason(suite).strip():
            raise InputError(
                f"suite {suite!r}: {fault}: draw the suite again with a --judge of another "
                "maker, or give a reason by --judge-anyway, which the verdict shows"
            )
        data_class_checks.check_suite(ctx, suite, [judge])


def _check_draw(ctx: ProposalsContext, suite: str, incumbent: Target) -> None:
    answers_of = ctx.suites.answers_of(suite)
    again = f"draw it again by `swapproof suite draw {suite} … --replace`"
    if answers_of != incumbent.name:
        raise StaleEvidence(
            f"suite {suite!r} has answers of {answers_of}, but the route's incumbent is "
            f"{incumbent.name}: {again}"
        )
    oldest = ctx.suites.oldest_record(suite)
    # Whole days: a record of the first day of a draw counts until that day's end.
    if oldest is not None and ctx.clock.now() - oldest > timedelta(days=MAX_AGE_DAYS + 1):
        raise StaleEvidence(
            f"suite {suite!r} has records of {oldest:%Y-%m-%d}, older than {MAX_AGE_DAYS} "
            f"days: {again}"
        )


def _check_registration(ctx: ProposalsContext, tx: Transaction, suite: str) -> None:
    """Raises StaleEvidence unless the data file is the file that the newest draw registered.

    A person who may leave out records or change logged answers could choose the verdict.
    """
    name = whole_suite(suite)
    since = ctx.clock.now() - timedelta(days=MAX_AGE_DAYS + 1)
    events = AuditLog(tx).for_subject(f"suite {name}", since=since, limit=1, actions=(DRAWN,))
    again = f"draw it again by `swapproof suite draw {name} … --replace`"
    if not events:
        raise StaleEvidence(
            f"the audit log has no draw of suite {name!r} in {MAX_AGE_DAYS} days: {again}"
        )
    if events[0].details.get("sha256") != ctx.suites.pin(name).data_sha256:
        raise StaleEvidence(
            f"the data file of suite {name!r} has changed since its draw of "
            f"{events[0].at:%Y-%m-%d}: {again}"
        )


def describe_receivers(
    ctx: ProposalsContext, route: str, candidates: Sequence[str]
) -> Iterator[str]:
    """Yields a sentence for each suite of traffic that names who gets its contents."""
    with ctx.store.read() as tx:
        settings = require_route(tx, route).settings
    for suite in list_traffic_suites(ctx, settings):
        receivers = [
            *(f"{name} (candidate)" for name in candidates),
            f"{ctx.judges[suite].name} (judge)",
            f"{ctx.suites.answers_of(suite)} (incumbent, asked again)",
        ]
        yield f"suite {suite!r} sends users' contents to {', '.join(receivers)}"


def has_stale_record(runs: Iterable[EvalRun]) -> bool:
    """Tells whether a run found that its suite of traffic no longer shows the incumbent."""
    return any(run.state is RunState.FAILED and RECORD_STALE in run.message for run in runs)
