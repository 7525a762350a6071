"""Tells whether each arm's own model gave the answers of a verdict (statistics.md §1.1).

A gateway may answer from its fallback and mark the answer, or answer for two names with one
model. Then the scores do not compare the two models that were asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from harness.frame.formatting import format_percent, format_quantity
from harness.gate.offline.suite_claims import SuiteClaim

# With a larger share of an arm's answers from a gateway's fallback, a run is not measured.
MOST_FALLBACKS: Final = 0.05
ARMS: Final = ("incumbent", "candidate")
CONFIRM_SAME_MODEL: Final = "swapproof proposal confirm-same-model"


@dataclass(frozen=True, slots=True)
class SameModel:
    """The finding that two models were asked, but the answers of both arms name the same
    models.

    models: the names of incumbent and candidate. served: the names in the answers. confirmed:
    an approver says that this is intended, such as for a new key or deployment of one model.
    """

    models: tuple[str, str]
    served: tuple[str, ...]
    confirmed: bool = False

    def as_json(self) -> dict[str, object]:
        return {
            "models": list(self.models),
            "served": list(self.served),
            "confirmed": self.confirmed,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        models = stored["models"]
        served = stored["served"]
        return cls((models[0], models[1]), tuple(served), bool(stored["confirmed"]))

    @property
    def text(self) -> str:
        """Describes both facts in one sentence, without its full stop."""
        return (
            f"{self.models[0]} and {self.models[1]} were asked, but both were served by "
            f"{' and '.join(self.served)}"
        )


def find_same_model(
    cases: Sequence[SuiteClaim],
    models: tuple[str, str],
    *,
    confirmed: bool,
) -> SameModel | None:
    """Finds whether the same models served both arms; None if not, or if only one model was
    asked.

    Args:
        models: the models' names for incumbent and candidate, without their providers.
        cases: with the items behind the verdict.

    Answers that name no model say nothing.
    """
    if models[0] == models[1]:
        return None
    served = [case.paired.served for case in cases]
    ours = {model.model for arms in served for model in arms.incumbent}
    theirs = {model.model for arms in served for model in arms.candidate}
    if not ours or ours != theirs:
        return None
    return SameModel(models, tuple(sorted(ours)), confirmed)


def describe_unmeasured(cases: Sequence[SuiteClaim], same: SameModel | None) -> str:
    """Explains why the answers do not compare the two models; empty if they do."""
    for case in cases:
        items = case.paired.items
        answers = len(items) * case.plan.epochs
        for arm, number in zip(ARMS, _fallbacks(case), strict=True):
            if number > MOST_FALLBACKS * answers:
                share = format_percent(number / answers)
                return (
                    f"{case.plan.suite}: a gateway marks {number:,} of the {arm}'s "
                    f"{format_quantity(answers, 'answer')} ({share}) as its fallback's, which "
                    f"is more than {format_percent(MOST_FALLBACKS)}. Check the {arm}'s model "
                    "behind the gateway, then propose again."
                )
    return "" if same is None or same.confirmed else describe_unconfirmed(same)


def describe_unconfirmed(same: SameModel) -> str:
    """Explains how an approver confirms that both arms may be served by one model."""
    return (
        f"{same.text}. If this is intended, such as for a new key or deployment, an "
        f"approver confirms it: `{CONFIRM_SAME_MODEL} ID --reason …`."
    )


def _fallbacks(case: SuiteClaim) -> tuple[int, int]:
    counts = [item.fallbacks for item in case.paired.items]
    return sum(ours for ours, _ in counts), sum(theirs for _, theirs in counts)
