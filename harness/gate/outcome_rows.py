"""Shows how the requests of both arms ended, as rows of a table and as a sentence.

In each arm, the rows of outcomes sum to the requests assigned.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from harness.frame.formatting import format_percent
from harness.gate.online.guardrails import ArmSplit
from harness.gate.online.outcome import (
    OUTCOME_NAMES,
    OutcomeKind,
    outcome_name,
    split_key,
)
from harness.gate.online.rollout_action import RolloutFigures
from harness.gate.online.uncounted import (
    UncountedReason,
    UnsupportedShare,
    find_unsupported,
    uncounted_words,
)

_ORDER: Final = {kind: number for number, kind in enumerate(OutcomeKind)}


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """The requests of both arms that ended in one way.

    key: of `outcome_key`; empty for the sum. candidate_share, incumbent_share: of the arm's
    assigned requests; None if it has none, or if the requests were not assigned.
    """

    key: str
    name: str
    candidate: int
    incumbent: int
    candidate_share: float | None
    incumbent_share: float | None

    @property
    def candidate_text(self) -> str:
        """Writes the candidate's number and share."""
        return _count_text(self.candidate, self.candidate_share)

    @property
    def incumbent_text(self) -> str:
        """Writes the incumbent's number and share."""
        return _count_text(self.incumbent, self.incumbent_share)


def outcome_rows(figures: RolloutFigures) -> tuple[OutcomeRow, ...]:
    """Returns a row for each outcome in the order of `OutcomeKind`, and the sum as last row.

    Returns no row for a rollout whose blocks record no outcomes.
    """
    if not figures.outcomes:
        return ()
    keys = sorted(figures.outcomes, key=_row_order)
    rows = [_build_row(key, outcome_name(key), figures.outcomes[key], figures) for key in keys]
    return (*rows, _build_row("", "Assigned", figures.assigned, figures))


def uncounted_rows(figures: RolloutFigures) -> tuple[OutcomeRow, ...]:
    """Returns a row for each reason why the router could not count a caller.

    Only requests that the candidate cannot take have a share, of its arm's requests.
    """
    unsupported = _unsupported(figures)
    return tuple(
        OutcomeRow(
            key,
            f"Not counted: {uncounted_words(key)}",
            split.canary,
            split.failures - split.canary,
            split.canary / unsupported.of
            if key == UncountedReason.UNSUPPORTED and unsupported.of
            else None,
            None,
        )
        for key, split in sorted(figures.uncounted.items())
    )


def _unsupported(figures: RolloutFigures) -> UnsupportedShare:
    return find_unsupported(figures.assigned, figures.outcomes, figures.uncounted)


def served_rows(figures: RolloutFigures) -> tuple[OutcomeRow, ...]:
    """Returns a row for each model that the answers name, the most frequent one first."""
    ordered = sorted(figures.served.items(), key=lambda item: (-item[1].failures, item[0]))
    return tuple(
        OutcomeRow(
            name,
            f"Served by {name}",
            split.canary,
            split.failures - split.canary,
            None,
            None,
        )
        for name, split in ordered
    )


def describe_outcomes(figures: RolloutFigures) -> str:
    """Writes the outcomes of both arms by kind; empty for a rollout without outcomes.

    For example: `candidate: 97 answered, 3 failed, of 100 assigned; incumbent: …`. Ends with
    the share of requests that the outcomes describe, unless they describe all.
    """
    limits = _unsupported(figures).text
    if not figures.outcomes:
        return limits
    arms = (("candidate", True), ("incumbent", False))
    ends = "; ".join(f"{name}: {_arm_text(figures, canary=canary)}" for name, canary in arms)
    return f"{ends}. {limits}" if limits else ends


def _arm_text(figures: RolloutFigures, *, canary: bool) -> str:
    kinds = Counter[OutcomeKind]()
    for key, split in figures.outcomes.items():
        kinds[split_key(key)[0]] += split.canary if canary else split.failures - split.canary
    parts = ", ".join(
        f"{kinds[kind]:,} {_name_in_sentence(kind)}" for kind in _ORDER if kinds[kind]
    )
    whole = figures.assigned
    assigned = whole.canary if canary else whole.failures - whole.canary
    return f"{parts}, of {assigned:,} assigned" if parts else "no request assigned"


def _name_in_sentence(kind: OutcomeKind) -> str:
    name = OUTCOME_NAMES[kind]
    return f"{name[:1].lower()}{name[1:]}"


def _build_row(
    key: str,
    name: str,
    split: ArmSplit,
    figures: RolloutFigures,
) -> OutcomeRow:
    whole = figures.assigned
    control = split.failures - split.canary
    return OutcomeRow(
        key,
        name,
        split.canary,
        control,
        split.canary / whole.canary if whole.canary else None,
        control / (whole.failures - whole.canary) if whole.failures > whole.canary else None,
    )


def _row_order(key: str) -> tuple[int, str]:
    return _ORDER[split_key(key)[0]], key


def _count_text(count: int, share: float | None) -> str:
    return f"{count:,}" if share is None else f"{count:,} ({format_percent(share)})"
