"""All that the stored state must agree with, checked whole (`swapgate db check`)."""

from collections.abc import Iterator

from harness.control import audit
from harness.control.context import Context
from harness.control.evals import recomputation
from harness.control.operations import state_audit
from harness.domain.errors import NotFound, SignatureInvalid
from harness.domain.evals.run import Passed
from harness.domain.proposals.proposal import Proposal
from harness.ports import Transaction


def check_database(ctx: Context) -> list[str]:
    """A line each: the audit chain, rows against the log, passes against their scores."""
    found = []
    with ctx.store.read() as tx:
        broken = audit.find_first_break(ctx, tx)
        if broken is not None:
            found.append(f"the audit log is broken at event {broken}")
    found += [each.words for each in state_audit.compare_all(ctx)]
    try:
        with ctx.store.read() as tx:
            found += _passes(ctx, tx)
    except SignatureInvalid as error:
        found.append(str(error))
    return found


def _passes(ctx: Context, tx: Transaction) -> list[str]:
    """Verdicts that may be proof, and that the stored scores do not give."""
    found = []
    for proposal in _proposals(tx):
        if proposal.verdict is None:
            continue
        try:
            verdict = tx.verdicts.get(proposal.verdict)
        except (NotFound, SignatureInvalid) as error:
            found.append(f"{proposal.id}: {error}")
            continue
        if isinstance(verdict, Passed):
            again = recomputation.recompute_stored(ctx, tx, verdict, proposal)
            if not again.agrees:
                found.append(f"verdict {verdict.id}: {again.words}")
    return found


def _proposals(tx: Transaction) -> Iterator[Proposal]:
    """All of them, newest first, a page at a time."""
    last: str | None = None
    while page := tx.proposals.list(after=last):
        yield from page
        last = page[-1].id
