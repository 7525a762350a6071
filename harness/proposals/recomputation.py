"""Recomputes a verdict from its stored samples and labels before Swapproof relies on it, and
replays it from its inputs. Results are cached by the content of verdict, registration, samples
and labels.

A verdict's own inputs do not count as evidence: the terms come from the registration, and the
pairs from the samples. Figures may differ by TOLERANCE, because another version of a numerical
library may change the last digit. `harness.evals.proof_validity` checks whether a proof is
still current (suites, providers, data classes). `harness.gate.offline` has the gate's rules.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import structlog

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import (
    EvidenceMismatch,
    NotFound,
    SignatureInvalid,
    StaleEvidence,
    SwapproofError,
)
from harness.frame.formatting import add_seconds
from harness.frame.plain_data import digest, hash_content, to_plain
from harness.frame.records.transaction import Transaction
from harness.gate.incumbent_days import find_mean_faults
from harness.gate.offline import verdicts
from harness.gate.offline.pairs import pair_samples
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.offline.verdicts import (
    RULES_VERSION,
    claims_from_json,
    decide_from_claims,
    read_same_model,
    report_json,
    verdict_bytes,
    verdict_times,
)
from harness.gate.pins import ServedModels
from harness.gate.run import Sample
from harness.gate.suite_plan import Claim
from harness.gate.verdict import Verdict
from harness.proposals import evaluation, scheduled_runs, slice_attempts
from harness.proposals.context import ProposalsContext
from harness.proposals.labels import label_verdicts
from harness.proposals.labels.blindness import list_labelled_suites
from harness.proposals.labels.label_faults import list_stored_faults, remeasure_labels
from harness.proposals.labels.label_progress import LabellingState
from harness.providers.records import Targets
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts

RunSamples = tuple[Sequence[Sample], Sequence[Sample]]

TOLERANCE: Final = 1e-9

MAX_NAMED: Final = 5  # items and figures named in texts


class AgreementLevel(StrEnum):
    """The agreement of a recomputed verdict with the stored verdict.

    Only AGREES lets a swap continue. A running canary pauses at FIGURES_DIFFER, and rolls back
    at DIFFERS.
    """

    AGREES = "agrees"
    # Evidence and outcome are the same; a figure differs.
    FIGURES_DIFFER = "figures_differ"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Recomputation:
    agreement: AgreementLevel
    differences: tuple[str, ...] = ()  # one text for each difference

    @property
    def agrees(self) -> bool:
        return self.agreement is AgreementLevel.AGREES

    @property
    def text(self) -> str:
        return "; ".join(self.differences)


def describe_other_rules(rules: object) -> str:
    return f"rules {rules} decided it, but this version has rules {RULES_VERSION}"


def recompute_verdict(
    stored: Verdict,
    proposal: Proposal,
    samples: Mapping[str, RunSamples],
    labellings: Mapping[str, LabellingState],
) -> Recomputation:
    """Decides the verdict again from `samples` and `labellings`, by suite, under the
    registration of `proposal`, and compares it with the stored verdict.

    Never raises for a forged verdict, but returns DIFFERS. Returns FIGURES_DIFFER for a verdict
    of another version of the rules, because this version cannot decide it again.

    Args:
        samples: incumbent's and candidate's, in the run's order, possibly with later samples.
    """
    if (rules := stored.inputs.get("rules")) != RULES_VERSION:
        is_older = isinstance(rules, int) and rules < RULES_VERSION
        next_step = "propose the swap again" if is_older else "upgrade"
        return Recomputation(
            AgreementLevel.FIGURES_DIFFER,
            (f"{describe_other_rules(rules)}: {next_step}",),
        )
    try:
        return _recompute(stored, proposal, samples, labellings)
    except (
        SwapproofError,
        AttributeError,
        ValueError,
        LookupError,
        TypeError,
    ) as error:
        # A forged verdict may contain anything.
        return _build_difference(
            [f"it cannot be decided again: {type(error).__name__}: {error}"]
        )


def _recompute(
    stored: Verdict,
    proposal: Proposal,
    samples: Mapping[str, RunSamples],
    labellings: Mapping[str, LabellingState],
) -> Recomputation:
    """Compares the terms, the pairs and the labels, and decides again only if all agree."""
    claims = claims_from_json(stored.inputs)
    differences = [*_list_registration_faults(stored, proposal, claims)]
    remeasured = []
    for claim in claims:
        claim_samples = samples.get(claim.plan.suite, ((), ()))
        remeasured_claim, claim_differences = remeasure_claim(claim, claim_samples)
        differences += claim_differences
        state = labellings.get(claim.plan.suite)
        labelled_claim, label_differences = remeasure_labels(
            remeasured_claim, proposal, state, claim_samples[1]
        )
        differences += label_differences
        remeasured.append(labelled_claim)
    if differences:
        return _build_difference(differences)
    decided = decide_from_claims(stored, remeasured)
    if decided is None:
        return _build_difference(["the stored scores do not decide"])
    return _compare_verdicts(stored, decided)


def _list_registration_faults(
    stored: Verdict,
    proposal: Proposal,
    claims: Sequence[SuiteClaim],
) -> Iterator[str]:
    """Yields each difference between a verdict's terms and the proposal's registration.

    Terms are route, targets, plans, runs, and the times of decision and expiry.
    """
    for name in ("route", "incumbent", "candidate"):
        if getattr(stored, name) != getattr(proposal, name):
            yield f"its {name} differs from {proposal.id}"
    plans = {claim.plan.suite: claim.plan.as_json() for claim in claims}
    if plans != {plan.suite: plan.as_json() for plan in proposal.plans}:
        yield f"its suites and terms differ from the registration of {proposal.id}"
    by_people = {claim.plan.suite for claim in claims if claim.by_people}
    for suite in sorted(by_people ^ list_labelled_suites(proposal)):
        yield f"{suite}: its policy asks for another verdict (`proof: people` or `judge`)"
    for claim in claims:
        pair = proposal.runs.get(claim.plan.suite)
        paired = claim.paired
        registered_runs = (pair.incumbent, pair.candidate) if pair else ("?", "?")
        used_runs = (paired.incumbent_run, paired.candidate_run)
        if not paired.items:  # a side without answers has no run
            used_runs = (used_runs[0] or registered_runs[0], used_runs[1] or registered_runs[1])
        if used_runs != registered_runs or paired.days != (pair.days if pair else None):
            yield f"{claim.plan.suite}: its runs differ from the runs of {proposal.id}"
    same_model = read_same_model(stored.inputs)
    if same_model is not None and same_model.confirmed and proposal.same_model is None:
        yield f"no approver confirmed that both models of {proposal.id} may be the same"
    decided_at, expires_at = verdict_times(stored.inputs)
    expected_end = add_seconds(decided_at, proposal.policy.gate.verdict_ttl_s)
    if (stored.decided_at, stored.expires_at) != (
        decided_at,
        expires_at,
    ) or expected_end != expires_at:
        yield "its times differ from its policy's"


def remeasure_claim(case: SuiteClaim, samples: RunSamples) -> tuple[SuiteClaim, list[str]]:
    """Returns the case with pairs from the samples, and its differences as text.

    Without differences, the returned case has the same items as the verdict. With differences,
    the case is returned unchanged.

    Args:
        samples: incumbent's and candidate's, in the run's order.
    """
    suite = case.plan.suite
    used_items = case.paired.items
    try:
        paired = pair_samples(case.plan, *samples)
    except SwapproofError as error:
        return case, [f"{suite}: the stored samples cannot be paired: {error}"]
    items = paired.items[: len(used_items)]
    if len(items) < len(used_items):
        shortage = (
            f"{suite}: {len(used_items)} items were used, but the stored samples have "
            f"{len(items)}"
        )
        return case, [shortage]
    # Later items may have been measured since.
    remeasured = replace(
        paired, items=items, blocked=case.paired.blocked, days=case.paired.days
    )
    if case.paired.served != ServedModels() and remeasured.served != case.paired.served:
        return case, [f"{suite}: the stored samples name other served models than the verdict"]
    changed_items = [
        current.pair.item
        for used_item, current in zip(used_items, items, strict=True)
        if used_item != current
    ]
    if changed_items:
        more_text = (
            f" and {len(changed_items) - MAX_NAMED} more"
            if len(changed_items) > MAX_NAMED
            else ""
        )
        named = ", ".join(changed_items[:MAX_NAMED])
        return case, [f"{suite}: items {named}{more_text} differ from the samples"]
    return replace(case, paired=remeasured), []


def _build_difference(differences: Sequence[str]) -> Recomputation:
    return Recomputation(AgreementLevel.DIFFERS, tuple(differences))


def _compare_verdicts(stored: Verdict, recomputed: Verdict) -> Recomputation:
    """Compares two verdicts: outcome, then suites, then each figure of each suite's report."""
    if stored.outcome != recomputed.outcome:
        return _build_difference(
            [f"the stored scores give {recomputed.words}, but the verdict is {stored.words}"]
        )
    if len(stored.suites) != len(recomputed.suites):
        return _build_difference(["the stored scores belong to other suites"])
    figure_differences: list[str] = []
    other_differences: list[str] = []
    for stored_report, new_report in zip(stored.suites, recomputed.suites, strict=True):
        for name, is_figure, words in _list_differences(
            "", report_json(stored_report), report_json(new_report)
        ):
            (figure_differences if is_figure else other_differences).append(
                f"{stored_report.suite}: {name} {words}"
            )
    if other_differences:
        return _build_difference(other_differences[:MAX_NAMED])
    if figure_differences:
        return Recomputation(
            AgreementLevel.FIGURES_DIFFER, tuple(figure_differences[:MAX_NAMED])
        )
    return Recomputation(AgreementLevel.AGREES)


def _list_differences(
    name: str,
    stored: Any,
    recomputed: Any,
) -> Iterator[tuple[str, bool, str]]:
    """Yields (name, is_figure, description) of each difference, except of sentences."""
    if isinstance(stored, Mapping) and isinstance(recomputed, Mapping):
        for key in sorted({*stored, *recomputed}):
            if key != "reason":
                path = f"{name}.{key}" if name else str(key)
                yield from _list_differences(path, stored.get(key), recomputed.get(key))
    elif _is_list(stored) and _is_list(recomputed) and len(stored) == len(recomputed):
        for index, pair in enumerate(zip(stored, recomputed, strict=True)):
            yield from _list_differences(f"{name}[{index}]", *pair)
    elif isinstance(stored, float) or isinstance(recomputed, float):
        if not _are_close(stored, recomputed):
            yield name, True, f"is {recomputed}, but the verdict has {stored}"
    elif name.startswith("details.") and isinstance(stored, str):
        return  # texts that contain figures
    elif stored != recomputed and not (_is_list(stored) and list(stored) == list(recomputed)):
        yield name, False, f"is {recomputed}, but the verdict has {stored}"


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _are_close(before: object, now: object) -> bool:
    """Tells whether both are numbers that agree within TOLERANCE; two NaN agree."""
    return (
        isinstance(before, int | float)
        and isinstance(now, int | float)
        and (
            math.isclose(
                before,
                now,
                rel_tol=TOLERANCE,
                abs_tol=TOLERANCE,
            )
            or (math.isnan(before) and math.isnan(now))
        )
    )


log = structlog.get_logger("swapproof.recomputation")

MAX_REMEMBERED: Final = 64


def recompute_stored(
    ctx: ProposalsContext,
    tx: Transaction,
    verdict: Verdict,
    proposal: Proposal,
) -> Recomputation:
    """Recomputes a stored verdict from the stored samples of its proposal's runs.

    Keeps the last MAX_REMEMBERED results in `ctx.recomputed` under a digest of verdict, plans
    and samples, so that a changed row never finds an old result. Missing or forged rows give
    DIFFERS.
    """
    try:
        runs = {run: EvalRuns(tx).get(run) for run in sorted(evaluation.list_run_ids(proposal))}
        evaluation.check_arms(proposal, runs)
        samples = evaluation.load_answers(tx, proposal)
        labellings = label_verdicts.load_states(tx, proposal)
        mean_faults = scheduled_runs.load_mean_differences(tx, proposal)
        level_faults = slice_attempts.find_level_faults(tx, proposal, verdict)
        key = _digest(verdict, proposal, samples, labellings)
    except (NotFound, SignatureInvalid, StaleEvidence, ValueError) as error:
        # A forged verdict may have figures that raise ValueError.
        return Recomputation(AgreementLevel.DIFFERS, (str(error),))
    if faults := [*mean_faults, *level_faults]:
        return _build_difference(faults)
    recomputation = ctx.recomputed.get(key)
    if recomputation is None:
        recomputation = recompute_verdict(verdict, proposal, samples, labellings)
        while len(ctx.recomputed) >= MAX_REMEMBERED:
            ctx.recomputed.pop(next(iter(ctx.recomputed)))
        ctx.recomputed[key] = recomputation
    return recomputation


@dataclass(frozen=True, slots=True)
class OtherRules:
    """An open proposal whose verdict another version of the rules decided."""

    proposal: Proposal
    candidate: str  # the target's name
    rules: object  # as the verdict's inputs state them

    @property
    def next_step(self) -> str:
        """The commands that end the proposal and measure its candidate by the present rules."""
        proposal = self.proposal
        end = f"swapproof proposal cancel {proposal.id} --reason …"
        if proposal.phase is ProposalPhase.CANARY:
            end = f"swapproof canary abort {proposal.route} --reason …"
        again = f"swapproof proposal create {proposal.route} {self.candidate}"
        again += f" --claim {proposal.claim.value}"
        if proposal.claim is not Claim.SUPERIOR:
            again += f" --margin {proposal.policy.gate.margin!r} --reason …"
        return f"`{end}`, then `{again}`"


def list_other_rule_proposals(ctx: ProposalsContext) -> Sequence[OtherRules]:
    """Lists the open proposals with a verdict that this version of the rules cannot recompute.
    Omits missing and forged verdicts.
    """
    other_rules = []
    with ctx.store.read() as tx:
        targets_by_id = Targets(tx).all()
        for proposal in Proposals(tx).open():
            if proposal.verdict is None:
                continue
            try:
                rules = Verdicts(tx).get(proposal.verdict).inputs.get("rules")
            except (NotFound, SignatureInvalid):
                continue
            if rules != RULES_VERSION:
                name = targets_by_id[proposal.candidate].name
                other_rules.append(OtherRules(proposal, name, rules))
    return other_rules


def require_agreement(
    ctx: ProposalsContext,
    tx: Transaction,
    verdict: Verdict,
    proposal: Proposal,
) -> None:
    """Requires that the stored samples still give the verdict. Raises EvidenceMismatch."""
    recomputation = recompute_stored(ctx, tx, verdict, proposal)
    if not recomputation.agrees:
        raise EvidenceMismatch(proposal.id, verdict.id, recomputation.text)


def raise_mismatch_alert(
    tx: Transaction,
    proposal: Proposal,
    verdict: str,
    differences: str,
) -> None:
    """Opens the alert that stored scores no longer give the verdict. Each verdict has one such
    alert.

    Args:
        verdict: its id.
        differences: as text.

    Also logs an error.
    """
    log.error(
        "evidence_mismatch",
        proposal=proposal.id,
        verdict=verdict,
        differences=differences,
    )
    alerts.raise_alert(
        tx,
        AlertKind.EVIDENCE_MISMATCH,
        verdict,
        subject=f"route {proposal.route}",
        title=f"the stored scores no longer give the verdict of {proposal.id}",
        text=f"Verdict {verdict}: {differences}. It does not prove anything any more.",
    )


@contextmanager
def alert_on_mismatch(ctx: ProposalsContext) -> Iterator[None]:
    """Alerts people if a person's action in the block raises EvidenceMismatch.

    The block must contain the whole transaction, because the refusal rolls it back.
    """
    try:
        yield
    except EvidenceMismatch as error:
        with ctx.store.write() as tx:
            raise_mismatch_alert(
                tx,
                Proposals(tx).get(error.proposal),
                error.verdict,
                error.differences,
            )
        raise


def _digest(
    verdict: Verdict,
    proposal: Proposal,
    samples: Mapping[str, RunSamples],
    labellings: Mapping[str, LabellingState],
) -> str:
    """Hashes everything on which a recomputation depends: verdict, registration, samples and
    labels.
    """
    parts = [
        hash_content(verdict_bytes(verdict)),
        verdict.decided_at.isoformat(),
        verdict.expires_at.isoformat(),
        proposal.id,
        [plan.as_json() for plan in proposal.plans],
        proposal.policy.gate.verdict_ttl_s,
        proposal.same_model is not None,
        {suite: [_sample_fields(side) for side in sides] for suite, sides in samples.items()},
        proposal.policy.proof.value,
        to_plain(labellings),
    ]
    return digest(parts)


def _sample_fields(samples: Sequence[Sample]) -> list[list[object]]:
    """Lists the fields of samples that the gate reads."""
    return [
        [
            sample.run,
            sample.item,
            sample.epoch,
            sample.position,
            sample.strict,
            sample.lenient,
            sample.error,
            bool(sample.answer),
            sample.rule,
            sample.cost_usd,
            *sample.served.pair,
            *sample.judge.pair,
        ]
        for sample in samples
    ]


@dataclass(frozen=True, slots=True)
class ReplayedVerdict:
    """A verdict that was decided again from its own inputs (`replay_verdict`)."""

    stored: Verdict
    # stored_sha256, again_sha256: hashes of the whole verdict in canonical form.
    stored_sha256: str
    again_sha256: str
    items: Mapping[str, int]  # checked stored samples, by suite
    # Differences from the stored verdict, as text; empty if there are none.
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        return not self.differences


def replay_verdict(ctx: ProposalsContext, decision: str) -> ReplayedVerdict:
    """Decides a verdict again from its stored inputs, and compares the inputs with the samples.

    Unlike `recompute_verdict`, it expects the same bytes: both use the verdict's own inputs.

    Args:
        decision: a verdict's id, or a proposal's for its newest verdict.

    Raises NotFound, also for a proposal without a verdict.
    """
    with ctx.store.read() as tx:
        stored = _load_verdict(tx, decision)
        claims = claims_from_json(stored.inputs)
        samples = {claim.plan.suite: _load_samples(tx, claim) for claim in claims}
        differences = [fault for claim in claims for fault in _list_mean_faults(tx, claim)]
        differences += [
            fault
            for claim in claims
            for fault in list_stored_faults(tx, claim, samples[claim.plan.suite][1])
        ]
    for claim in claims:
        differences += remeasure_claim(claim, samples[claim.plan.suite])[1]
    stored_bytes = verdict_bytes(stored)
    replayed_bytes = b""
    try:
        replayed_bytes = verdict_bytes(verdicts.replay_verdict(stored))
    except ValueError as error:
        differences.append(str(error))
    if replayed_bytes and replayed_bytes != stored_bytes:
        differences.append(
            "the stored inputs give a verdict that differs from the stored verdict"
        )
    return ReplayedVerdict(
        stored=stored,
        stored_sha256=hash_content(stored_bytes),
        again_sha256=hash_content(replayed_bytes),
        items={claim.plan.suite: len(claim.paired.items) for claim in claims},
        differences=tuple(differences),
    )


def _list_mean_faults(tx: Transaction, case: SuiteClaim) -> list[str]:
    """Describes how the incumbent's mean scores differ from its scheduled runs."""
    days = case.paired.days
    if days is None or not case.paired.incumbent_run:
        return []
    run = EvalRuns(tx).get(case.paired.incumbent_run)
    mean = EvalRuns(tx).outcomes(run.id, below=run.wanted)
    faults = find_mean_faults(days, mean, scheduled_runs.load_scheduled(tx, days))
    return [f"{case.plan.suite}: {fault}" for fault in faults]


def _load_verdict(tx: Transaction, decision: str) -> Verdict:
    """Loads a verdict by its id, or by its proposal's id, which begins with `p_`. Raises
    NotFound.
    """
    if not decision.startswith("p_"):
        return Verdicts(tx).get(decision)
    verdict = Proposals(tx).get(decision).verdict
    if verdict is None:
        raise NotFound(f"proposal {decision} has no verdict yet: the gate is still open")
    return Verdicts(tx).get(verdict)


def _load_samples(tx: Transaction, case: SuiteClaim) -> RunSamples:
    """Loads the samples of a claim's runs, up to the planned items; empty for a side without a
    run.
    """

    def samples_of(run: str, items: int) -> Sequence[Sample]:
        return EvalRuns(tx).samples(run, below=items) if run else ()

    plan = case.plan
    paired = case.paired
    return (
        samples_of(paired.incumbent_run, plan.planned_items),
        samples_of(paired.candidate_run, plan.planned_items),
    )
