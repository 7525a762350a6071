"""Checks what people and control are about to store: figures in range, four eyes, registrations
that may not change, waivers that expired, names that are known. `harness/store/sql` calls it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from harness.domain.errors import InputError, NotAllowed, NotFound, ProofRefused
from harness.domain.evals.pins import ServedModel, Sighting
from harness.domain.evals.run import RunState
from harness.domain.operations.access import ApiKey
from harness.domain.operations.principals import Principal, fold_name
from harness.domain.proposals.proposal import Approval, Proposal, ProposalPhase
from harness.domain.routing.evidence import TargetEvidence, Waiver
from harness.domain.routing.route_changes import (
    ChangeSettings,
    CreateRoute,
    PromoteCanary,
    ServeByWaiver,
    SetChain,
    StartCanary,
    TableChange,
)
from harness.domain.routing.table import KeyGrant
from harness.store.schema.columns import storable

ENDED: Final = (RunState.DONE, RunState.STOPPED, RunState.OVER_BUDGET, RunState.FAILED)
MOST_LET_IN: Final = 20  # proposals that a new one's suites are compared with
LONGEST_NAME: Final = 200  # of a served model, in characters


def checked_sightings(sightings: Iterable[Sighting]) -> Sequence[Sighting]:
    """Sightings as they can be stored, in one order for all writers, so that none deadlock."""
    found = []
    for sighting in sightings:
        model, build = (storable(text)[:LONGEST_NAME] for text in sighting.served.pair)
        if model:
            found.append(replace(sighting, served=ServedModel(model, build)))
    return sorted(found, key=lambda sighting: (sighting.target, sighting.served))


def is_same_principal(one: Principal, other: Principal) -> bool:
    """Whether two principals are one by id, name or sign-in: only one may be stored."""
    signs_in = one.issuer is not None and (one.issuer, one.subject) == (
        other.issuer,
        other.subject,
    )
    return one.id == other.id or one.folded == other.folded or signs_in


def check_four_eyes(proposal: Proposal) -> None:
    """Checks that the approver is not the proposer, unless the policy allows that; else raises
    NotAllowed.
    """
    if proposal.approver is None or proposal.self_approval:
        return
    if fold_name(proposal.approver) == fold_name(proposal.proposer):
        raise NotAllowed(
            f"{proposal.proposer} proposed {proposal.id} and cannot approve it: "
            "ask another approver"
        )


def check_approval(approval: Approval, proposal: Proposal) -> None:
    """Checks that an approval is not the proposer's own, unless the policy allows that; else
    raises NotAllowed.
    """
    whose = proposal.proposer_principal
    is_proposer = approval.principal == whose and bool(whose)
    approver = proposal.proposer if is_proposer else approval.name
    check_four_eyes(replace(proposal, approver=approver))


def check_unchanged(before: Proposal, after: Proposal) -> None:
    """Checks that nothing changes that a proposal registered; else raises InputError."""
    fixed = ["route", "incumbent", "candidate", "claim", "proposer", "policy", "created_at"]
    fixed += [
        "proposer_principal",
        "proposer_key",
        "widened",
        "selection",
        "place",
        "on_better",
    ]
    if before.change_reference:
        fixed.append("change_reference")
    if before.accepted_cost or before.approver:
        fixed.append("accepted_cost")
    if before.phase is not ProposalPhase.PROPOSED:
        fixed.append("plans")
    for name in fixed:
        if getattr(before, name) != getattr(after, name):
            raise InputError(
                f"proposal {before.id}: {name} was registered and cannot change; "
                "cancel it and propose again"
            )


def check_change_reference(approval: Approval, proposal: Proposal) -> None:
    """Checks that an approval names the change request of its proposal, where the policy asks
    for one; else raises InputError.
    """
    if proposal.needs_change_reference and not proposal.change_reference:
        raise InputError(
            f"the policy {proposal.policy.name!r} asks for a change request, and {proposal.id} "
            "has no change request: approve it with `--change NUMBER`"
        )
    if approval.change_reference != proposal.change_reference:
        raise InputError(
            f"{proposal.id} is under change {proposal.change_reference or 'none'}, not "
            f"{approval.change_reference or 'none'}"
        )


def check_let_in(proposal: Proposal) -> None:
    """Checks that another person approved a proposal with weaker rules than its route's policy
    before it goes on; else raises NotAllowed.
    """
    later = (ProposalPhase.CANARY, ProposalPhase.PROMOTED)
    if proposal.widened and proposal.approver is None and proposal.phase in later:
        raise NotAllowed(
            f"{proposal.id} asks for less than its route's policy does "
            f"({', '.join(proposal.widened)}): another person approves it first"
        )


def time_of_version(change: TableChange, now: datetime, before: datetime | None) -> datetime:
    """Returns the time of a new version: now, but for a canary or promotion no earlier than its
    proof and the version before it.

    A clock that was set back holds nothing up, and a row's time is in order.
    """
    if isinstance(change, ServeByWaiver) and before is not None:
        return max(now, before)
    if isinstance(change, StartCanary | PromoteCanary) and before is not None:
        return max(now, before, change.proof.decided_at)
    return now


def check_targets(change: TableChange, known: Collection[str]) -> None:
    """Checks that every target that a change names is stored; else raises NotFound."""
    match change:
        case CreateRoute():
            named: tuple[str, ...] = (change.incumbent, *change.fallbacks)
        case SetChain():
            named = change.fallbacks
        case _:
            return
    for target in named:
        if target not in known:
            raise NotFound(f"route {change.route!r}: there is no target {target}; add it")


def check_waivers(
    change: TableChange,
    chain: Iterable[TargetEvidence],
    waivers: Iterable[Waiver],
    now: datetime,
) -> None:
    """Checks that a person's change keeps no target whose waiver has expired; else raises
    ProofRefused.

    A rollout's own changes keep the chain as it is: going back is always allowed.
    """
    if not isinstance(change, SetChain | ChangeSettings):
        return
    expired = {row.id: row for row in waivers if row.expired(now)}
    for evidence in chain:
        waiver = expired.get(evidence.proof)
        if waiver is not None:
            raise ProofRefused(
                f"route {change.route!r}: the waiver of {waiver.author} for {waiver.target} "
                f"expired on {waiver.expires_at:%Y-%m-%d}: take it out of the chain, or bring "
                "a verdict or a new waiver"
            )


def grants(keys: Iterable[ApiKey]) -> tuple[KeyGrant, ...]:
    """Returns the data keys that are not revoked: they open the router."""
    return tuple(
        KeyGrant(
            key.id,
            key.hash,
            key.routes,
            key.limits and key.limits.some,
            key.opt_outs,
        )
        for key in keys
        if key.role is None and key.revoked_at is None
    )
