"""Lets a proposal wait for people's labels, after all of its answers and before its verdict."""

from collections.abc import Iterable, Sequence

from harness.evals.proof_validity import SuiteChange
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.records.transaction import Transaction
from harness.gate.run import EvalRun, RunState
from harness.proposals.context import ProposalsContext
from harness.proposals.driving.proposal_ends import record_step, reject_in_transaction
from harness.proposals.labels import label_verdicts
from harness.proposals.labels.blindness import describe_label_command, list_labelled_suites
from harness.proposals.labels.label_verdicts import LabelWait
from harness.routing.proposal import Proposal, ProposalEvent


def may_begin(proposal: Proposal, runs: Iterable[EvalRun]) -> bool:
    """Tells whether an open proposal has all answers, and lacks only people's labels."""
    is_measured = all(run.state is RunState.DONE for run in runs)
    return is_measured and bool(list_labelled_suites(proposal))


def begin_wait(ctx: ProposalsContext, proposal: Proposal) -> list[str]:
    """Begins the wait, and tells people how to label."""
    suites = sorted(list_labelled_suites(proposal))
    with ctx.store.write() as tx:
        record_step(tx, proposal, label_verdicts.WAIT, {"suites": suites})
        _raise_alert(tx, proposal, (), AlertEvent.RAISED)
    return [f"{proposal.id}: waits for people's labels"]


def continue_wait(
    ctx: ProposalsContext,
    proposal: Proposal,
    wait: LabelWait,
    unloadable: Sequence[SuiteChange],
) -> list[str]:
    """Ends a wait that is too long, or updates its alert. Returns log lines.

    A suite that cannot be loaded does not end the proposal, because people have worked for it
    and the file may come back. But without the suite there is no verdict.

    Args:
        unloadable: such suites.
    """
    if wait.ends_at <= ctx.clock.now():
        command = describe_label_command(proposal)
        late = f"people have not labelled it in time ({command})"
        reason = "; ".join(change.text for change in unloadable) or late
        return reject_in_transaction(
            ctx, proposal, ProposalEvent.EXPIRED, f"{reason}: propose again"
        )
    with ctx.store.read() as tx:
        record = Alerts(tx).newest(f"{AlertKind.LABELS_WAIT.value}:{proposal.id}")
    if (
        record is not None
        and record.open
        and record.title != _write_title(proposal, unloadable)
    ):
        with ctx.store.write() as tx:
            _raise_alert(tx, proposal, unloadable, AlertEvent.STILL)
    return []


def _write_title(proposal: Proposal, unloadable: Sequence[SuiteChange]) -> str:
    names = ", ".join(change.suite for change in unloadable)
    missing = f", and for suite {names}" if names else ""
    return f"the comparison {proposal.id} waits for people's labels{missing}"


def _raise_alert(
    tx: Transaction,
    proposal: Proposal,
    unloadable: Sequence[SuiteChange],
    event: AlertEvent,
) -> None:
    suites = ", ".join(sorted(list_labelled_suites(proposal)))
    text = (
        f"People decide about {suites}, and the judge only predicts. "
        f"{describe_label_command(proposal)} shows the pairs."
    )
    for change in unloadable:
        text += f" {change.text}: bring its file back, because there is no verdict without it."
    alerts.raise_alert(
        tx,
        AlertKind.LABELS_WAIT,
        proposal.id,
        subject=f"route {proposal.route}",
        title=_write_title(proposal, unloadable),
        text=text,
        news=event,
    )
