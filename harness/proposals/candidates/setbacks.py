"""Finds setbacks of a model on any route: a stopped canary, a promotion that was rolled back,
or a failed verdict. A schedule proposes without a person, so its proposals describe the
setbacks.

A setback only warns: `candidates` still plans the model, and people read the setbacks in the
proposal's reason. The functions only read stored proposals and verdicts.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.frame.records.transaction import Transaction
from harness.gate.canary_sentences import end_predicate
from harness.gate.verdict import Failed
from harness.proposals.registration.route_risk import WINDOW
from harness.providers.records import Targets
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.verdicts import Verdicts

MOST_NAMED: Final = 3  # setbacks of one model; a text names the newest
MAX_REASON: Final = 200  # characters of the reason of one setback


@dataclass(frozen=True, slots=True)
class Setback:
    """One setback of a model, the newest on its route."""

    target: str  # its name, with its settings
    route: str
    proposal: str
    at: datetime
    predicate: str  # such as `was rolled back`
    reason: str
    served: bool  # whether it answered callers' requests

    @property
    def text(self) -> str:
        """Writes the setback as one sentence without a full stop, with a reason of at most
        MAX_REASON.
        """
        reason = self.reason.rstrip(".")
        if len(reason) > MAX_REASON:
            reason = f"{reason[: MAX_REASON - 1]}…"
        because = f": {reason}" if reason else ""
        return (
            f"{self.target} {self.predicate} on route {self.route} on {self.at:%Y-%m-%d} "
            f"({self.proposal}){because}"
        )


def find_setbacks(
    tx: Transaction,
    names: Collection[str],
    now: datetime,
) -> Mapping[str, Sequence[Setback]]:
    """Lists the setbacks of the last 90 days by model, the newest first. A route counts only by
    its newest outcome.

    Args:
        names: `provider/model`, which also stand for the model with other settings.
    """
    targets_by_id = Targets(tx).all()
    models = {
        id_: name
        for id_, target in targets_by_id.items()
        if (name := f"{target.provider}/{target.model}") in names
    }
    proposals = [
        proposal_
        for proposal_ in Proposals(tx).of_candidates(models)
        if now - proposal_.updated_at <= WINDOW
    ]
    decided_routes: set[tuple[str, str]] = set()
    setbacks: dict[str, list[Setback]] = {}
    for proposal in sorted(
        proposals, key=lambda proposal_: (proposal_.updated_at, proposal_.id), reverse=True
    ):
        name = models[proposal.candidate]
        if (name, proposal.route) in decided_routes:
            continue
        setback = _read_setback(tx, proposal, targets_by_id[proposal.candidate].name)
        if setback is not None or proposal.phase is ProposalPhase.PROMOTED:
            decided_routes.add((name, proposal.route))
        if setback is not None:
            setbacks.setdefault(name, []).append(setback)
    return setbacks


def _read_setback(
    tx: Transaction,
    proposal: Proposal,
    target: str,
) -> Setback | None:
    """Reads a proposal's setback; None if it ended without one, or is open."""
    if proposal.end is not None:
        predicate = end_predicate(proposal.end)
    elif proposal.phase is ProposalPhase.REJECTED and _has_failed(tx, proposal):
        predicate = "failed the gate"
    else:
        return None
    return Setback(
        target=target,
        route=proposal.route,
        proposal=proposal.id,
        at=proposal.updated_at,
        predicate=predicate,
        reason=proposal.closed_because if proposal.end is not None else "",
        served=proposal.end is not None,
    )


def _has_failed(tx: Transaction, proposal: Proposal) -> bool:
    verdict = Verdicts(tx).get(proposal.verdict) if proposal.verdict else None
    return isinstance(verdict, Failed)


def describe_setbacks(setbacks: Iterable[Setback]) -> str:
    """Writes the newest setbacks in one text; empty without any."""
    texts = [setback.text for setback in setbacks]
    omitted = len(texts) - MOST_NAMED
    shown = texts[:MOST_NAMED] + ([f"and on {omitted} other routes"] if omitted > 0 else [])
    return "; ".join(shown)
