"""Checks what the store is about to write: figures in range (samples, blocks, traffic, spend),
four eyes, registrations that may not change, waivers that expired. `harness/store/sql` calls it.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import Final

from harness.domain.canary.guardrails import FailureTally, Guardrail
from harness.domain.canary.observation import NeverSeen, ObservationBlock, TrafficMinute
from harness.domain.content_hash import canonical_json
from harness.domain.errors import InputError, NewerVersion, NotAllowed, NotFound, ProofRefused
from harness.domain.evals.pins import ServedModel, Sighting
from harness.domain.evals.run import RunState, Sample
from harness.domain.newer_fields import describe_newer
from harness.domain.operations.access import ApiKey
from harness.domain.operations.principals import Principal, fold_name
from harness.domain.privacy.capture import CapturedRequest
from harness.domain.proposals.proposal import Approval, Proposal, ProposalPhase
from harness.domain.reliability.failover import Failover
from harness.domain.reliability.spend import KeySpend
from harness.domain.routing.evidence import TargetEvidence, Waiver
from harness.domain.routing.kill_switch import KillSwitch, SwitchSource
from harness.domain.routing.route_changes import (
    ChangeSettings,
    CreateRoute,
    PromoteCanary,
    ServeByWaiver,
    SetChain,
    StartCanary,
    TableChange,
)
from harness.domain.routing.table import BUCKETS, KeyGrant
from harness.domain.shadow.shadow import Shadow, ShadowTally, check_shadow_limits
from harness.store.schema.columns import storable

ENDED: Final = (RunState.DONE, RunState.STOPPED, RunState.OVER_BUDGET, RunState.FAILED)
TRAFFIC_KEY: Final = ("route", "minute", "worker", "arm", "target", "revision")
TRAFFIC_SUMS: Final = (
    "requests",
    "failed",
    "charged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cached_tokens",
    "unpriced",
    "internal_errors",
)

TOTAL_KEY: Final = ("route", "arm", "target")
MOST_LET_IN: Final = 20  # proposals that a new one's suites are compared with
LONGEST_NAME: Final = 200  # of a served model, in characters

SPEND_KEY: Final = ("key", "day", "worker")
SPEND_SUMS: Final = ("requests", "tokens", "cost_usd", "unpriced")


def checked_sample(sample: Sample) -> Sample:
    """The sample as it can be stored. Raises InputError for figures out of their range."""
    where = f"sample {sample.item!r}, epoch {sample.epoch}, of run {sample.run}"
    for name in ("strict", "lenient"):
        score = getattr(sample, name)
        if score is not None and not 0 <= score <= 1:
            raise InputError(f"{where}: the score {name} is {score}; scores are in [0, 1]")
    if sample.strict is None and sample.error is None:
        raise InputError(f"{where} has neither a score nor an error: say why it has no score")
    _check_amounts(
        where,
        cost_usd=sample.cost_usd,
        duration_s=sample.duration_s,
        input_tokens=sample.input_tokens,
        output_tokens=sample.output_tokens,
        cached_tokens=sample.cached_tokens,
        judge_calls=sample.judge_calls,
        judge_cost_usd=sample.judge_cost_usd,
    )
    return replace(
        sample,
        answer=storable(sample.answer),
        error_text=storable(sample.error_text),
        served_model=storable(sample.served_model),
        prompt=storable(sample.prompt),
        rule=storable(sample.rule),
        served_build=storable(sample.served_build),
        judge_model=storable(sample.judge_model),
        judge_build=storable(sample.judge_build),
    )


def checked_sightings(sightings: Iterable[Sighting]) -> Sequence[Sighting]:
    """Sightings as they can be stored, in one order for all writers, so that none deadlock."""
    found = []
    for sighting in sightings:
        model, build = (storable(text)[:LONGEST_NAME] for text in sighting.served.pair)
        if model:
            found.append(replace(sighting, served=ServedModel(model, build)))
    return sorted(found, key=lambda sighting: (sighting.target, sighting.served))


def check_block(block: ObservationBlock) -> None:
    """Checks that the counts of a block do not contradict one another. Raises InputError."""
    errors = FailureTally(
        block.units, block.canary_units, block.failures, block.canary_failures
    )
    fits = (
        0 <= block.weight_bps <= 10_000
        and errors.fits
        and 0 <= block.missing <= block.units
        and block.period >= 1
        and all(map(partial(_is_part, block), block.counts.values()))
        and _is_whole(errors, block.counts.get(Guardrail.ERRORS))
        and all(0.0 <= u <= 1.0 for ranks in block.ranks.values() for u in ranks)
        and all(
            0.0 < value < math.inf
            for level in block.levels.values()
            for value in (level.canary, level.control)
        )
        and _is_part_of_block(block, block.never_seen)
        and _is_storable(block.newer)
    )
    if not fits:
        raise InputError(
            f"block {block.sequence} of worker {block.worker}, rollout {block.rollout}: "
            f"its counts contradict one another ({block})"
        )


def _is_storable(newer: object) -> bool:
    """What a newer version wrote is JSON, which has no infinity."""
    try:
        canonical_json(newer)
    except ValueError:
        return False
    return True


def _is_part_of_block(block: ObservationBlock, new: NeverSeen | None) -> bool:
    """Never-seen units are some of the block's, with some of its failures."""
    if new is None:
        return True
    part = FailureTally(new.units, new.canary_units, new.failures, new.canary_failures)
    rest = FailureTally(
        block.units - new.units,
        block.canary_units - new.canary_units,
        block.failures - new.failures,
        block.canary_failures - new.canary_failures,
    )
    return (
        part.fits
        and rest.fits
        and all(
            tally.fits
            and tally.canary <= new.canary_units
            and tally.units - tally.canary <= new.units - new.canary_units
            for tally in (new.counts or {}).values()
        )
        and all(0.0 <= u <= 1.0 for ranks in (new.ranks or {}).values() for u in ranks)
    )


def _is_whole(errors: FailureTally, tally: FailureTally | None) -> bool:
    """What is told of each error is told of the same errors."""
    return tally is None or asdict(errors).items() <= asdict(tally).items()


def _is_part(block: ObservationBlock, tally: FailureTally) -> bool:
    """A guardrail applies to some of the block's units."""
    control = block.units - block.canary_units
    return (
        tally.fits
        and tally.canary <= block.canary_units
        and tally.units - tally.canary <= control
    )


def check_traffic(traffic: TrafficMinute) -> None:
    """Checks the figures of a minute of traffic. Raises InputError for a negative or infinite
    one.
    """
    _check_amounts(
        f"traffic of route {traffic.route!r} at {traffic.minute.isoformat()}",
        **{name: getattr(traffic, name) for name in TRAFFIC_SUMS},
    )


def check_spend(spend: KeySpend) -> None:
    """Checks the figures of what a key spent. Raises InputError for a negative or infinite
    one.
    """
    _check_amounts(
        f"what key {spend.key} spent on {spend.day.isoformat()}",
        **{name: getattr(spend, name) for name in SPEND_SUMS},
    )


def is_same_principal(one: Principal, other: Principal) -> bool:
    """Whether two principals are one by id, name or sign-in: only one may be stored."""
    signs_in = one.issuer is not None and (one.issuer, one.subject) == (
        other.issuer,
        other.subject,
    )
    return one.id == other.id or one.folded == other.folded or signs_in


def check_key(key: ApiKey) -> None:
    """Checks that a management key has a principal and a data key none. Raises InputError."""
    if (key.role is None) is not (key.principal is None):
        raise InputError(f"the key {key.id}: a management key has a principal, a data key none")


def check_waiver(waiver: Waiver) -> None:
    """Checks that a waiver has a reason and an author. Raises InputError."""
    if not (waiver.reason.strip() and waiver.author.strip()):
        raise InputError(
            f"the waiver for {waiver.target} on route {waiver.route!r} needs a reason and an "
            "author: both are shown wherever it is used"
        )


def check_switch(switch: KillSwitch) -> None:
    """Checks that a kill switch has a reason and comes from CLI or REST. Raises InputError."""
    if not switch.reason.strip():
        raise InputError(f"the switch {switch.force} needs a reason: everybody will see it")
    if switch.source not in (SwitchSource.CLI, SwitchSource.REST):
        raise InputError(
            f"the switch {switch.force} comes from {switch.source.value}, and stands there"
        )


def check_shadow(shadow: Shadow) -> None:
    """Checks a shadow's limits, its end and its reason, and that it compares two targets.
    Raises InputError.
    """
    check_shadow_limits(shadow.limits)
    if shadow.incumbent == shadow.candidate.id:
        raise InputError("a shadow compares the incumbent with another target")
    if shadow.expires_at <= shadow.started_at or not shadow.reason.strip():
        raise InputError(f"the shadow {shadow.id} needs a reason, and an end after its start")


def check_shadow_tally(tally: ShadowTally) -> None:
    """Checks the figures of a shadow's tally. Raises InputError for one that is negative or not
    finite.
    """
    _check_amounts(
        f"shadow {tally.shadow} of worker {tally.worker}", **tally.counts, **tally.sums
    )


def check_failover(row: Failover) -> None:
    """Checks the figures of a failover. Raises InputError for one out of its range."""
    _check_amounts(
        f"failover {row.number} of worker {row.worker}",
        attempts=row.attempts,
        latency_ms=row.latency_ms,
        body_bytes=row.body_bytes,
        messages=row.messages,
        tools=row.tools,
    )


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
    fixed += ["proposer_principal", "proposer_key", "widened", "selection", "place"]
    if before.change_reference:
        fixed.append("change_reference")
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
            f"the policy {proposal.policy.name!r} asks for a change request, and nobody named "
            f"one for {proposal.id}: approve it with `--change NUMBER`"
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
    later = (ProposalPhase.SHADOW, ProposalPhase.CANARY, ProposalPhase.PROMOTED)
    if proposal.widened and proposal.approver is None and proposal.phase in later:
        raise NotAllowed(
            f"{proposal.id} asks for less than its route's policy does "
            f"({', '.join(proposal.widened)}): another person approves it first"
        )


def check_phase_known(proposal: Proposal) -> None:
    """Checks that this version knows the phase that a stored proposal is in; else raises
    NewerVersion: it would put another one in its place.
    """
    if "phase" in proposal.newer:
        raise NewerVersion(describe_newer(proposal.newer_fields, f"proposal {proposal.id}"))


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

    What a rollout does by itself carries the chain as it is: going back is always allowed.
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


def _check_amounts(where: str, **figures: float | None) -> None:
    for name, figure in figures.items():
        if figure is not None and not (figure >= 0 and math.isfinite(figure)):
            raise InputError(f"{where}: {name} is {figure}; it must be finite and not negative")


def check_captured(new: CapturedRequest) -> None:
    """Checks a captured request before it is stored. Raises InputError for what the database
    refuses, and for content that is no JSON.
    """
    if not (1 <= new.share_bps <= BUCKETS and new.expires_at > new.at and len(new.rules) == 64):
        raise InputError(f"{new.id}: a captured request has a share, an end and its rules")
    try:
        canonical_json(new.content)
    except (ValueError, TypeError):
        raise InputError(f"{new.id}: its content is no JSON") from None


def grants(keys: Iterable[ApiKey]) -> tuple[KeyGrant, ...]:
    """The data keys that open the router: those that nobody has revoked."""
    return tuple(
        KeyGrant(
            key.id,
            key.hash,
            key.routes,
            key.limits and key.limits.some,
            key.opt_outs,
            key.project,
        )
        for key in keys
        if key.role is None and key.revoked_at is None
    )
