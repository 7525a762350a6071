"""Lets a proposal wait for people's labels, after all of its answers and before its verdict."""

from collections.abc import Iterable

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
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
    command = describe_label_command(proposal)
    with ctx.store.write() as tx:
        record_step(tx, proposal, label_verdicts.WAIT, {"suites": suites})
        alerts.raise_alert(
            tx,
            AlertKind.LABELS_WAIT,
            proposal.id,
            subject=f"route {proposal.route}",
            title=f"the comparison {proposal.id} waits for people's labels",
            text=f"People decide about {', '.join(suites)}, and the judge only predicts. "
            f"{command} shows the pairs.",
        )
    return [f"{proposal.id}: waits for people's labels"]


def end_if_late(ctx: ProposalsContext, proposal: Proposal, wait: LabelWait) -> list[str]:
    """Expires a proposal whose labels have not ended in time. Returns log lines."""
    if wait.ends_at > ctx.clock.now():
        return []
    command = describe_label_command(proposal)
    reason = f"people have not labelled it in time ({command}): propose again"
    return reject_in_transaction(ctx, proposal, ProposalEvent.EXPIRED, reason)
