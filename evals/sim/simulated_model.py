"""A simulated model answers an item, right or plausibly wrong; its ability is fitted so that
its share of right answers on a whole suite is its profile's skill.

Skill is a one-parameter item-response model with shared luck: a model answers an item rightly
with probability `logistic(ability - hardness(difficulty))`, `hardness(d) = SLOPE * (d - 1/2)`
(Rasch 1960). It does so when its luck `u` on the item is below that:

    u = Φ(√SHARED·z₁ + √(1-SHARED-SEEDED)·z₂ + √SEEDED·z₃)

with standard normal z from hashes of the item (z₁), of model
and item (z₂), and of both and the request's `seed`, 0 where it has none (z₃). z₁ is the same
for all models: what one misses another tends to miss too, as with real models, and so pairing
removes noise. The same seed gives the same answer, in every process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evals.sim import text_numbers
from evals.sim.item_bank import BankItem, ItemBank
from evals.sim.profiles import Profile

SLOPE = 5.0
SHARED = 0.72
SEEDED = 0.04


def luck(item: BankItem, *, model_seed: int, request_seed: int = 0) -> float:
    """Draws `u` in (0, 1): uniform over items, correlated between models."""
    place = (item.suite, item.id)
    z = (
        math.sqrt(SHARED) * text_numbers.normal("item", *place)
        + math.sqrt(1 - SHARED - SEEDED) * text_numbers.normal("model", model_seed, *place)
        + math.sqrt(SEEDED) * text_numbers.normal("seed", model_seed, *place, request_seed)
    )
    # Beyond 8 standard deviations Φ rounds to 0 or 1, which has no logit.
    return text_numbers.STANDARD_NORMAL.cdf(max(-8.0, min(8.0, z)))


def needed_ability(item: BankItem, *, model_seed: int, request_seed: int = 0) -> float:
    """The ability from which on the model answers this item rightly."""
    u = luck(item, model_seed=model_seed, request_seed=request_seed)
    return SLOPE * (item.difficulty - 0.5) + math.log(u / (1 - u))


def ability_for(items: Sequence[BankItem], *, share: float, model_seed: int) -> float:
    """The ability at which the model gets `round(share * n)` of the n items right at seed 0.

    So a profile's skill is its accuracy on the whole suite. A part of the suite differs from
    it by sampling, as it should.
    """
    needed = sorted(needed_ability(item, model_seed=model_seed) for item in items)
    bounds = [-math.inf, *needed, math.inf]
    right = round(share * len(needed))
    return (bounds[right] + bounds[right + 1]) / 2


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """What the model makes of an item."""

    item: BankItem
    right: bool
    value: Any  # the target, or a wrong answer of its type


class SimulatedModel:
    """Answers the items of one bank as one profile does. Abilities are found when a suite is
    first asked for.
    """

    def __init__(self, profile: Profile, bank: ItemBank) -> None:
        self.profile = profile
        self.fingerprint = profile.fingerprint
        if bank.version and not profile.build:
            # It answers otherwise than before it knew them: Swapgate shall not take the answers
            # of then for those of now.
            self.fingerprint += f"-{bank.version}"
        self._bank = bank
        self._abilities: dict[str, float] = {}

    def sit(self, item: BankItem, *, request_seed: int = 0) -> SimulatedAnswer:
        """Answers one item: the same for the same item and request seed, in every process."""
        suite, seed = item.suite, self.profile.seed
        if suite not in self._abilities:
            items, share = self._bank.suites[suite], self.profile.skill_in(suite)
            self._abilities[suite] = ability_for(items, share=share, model_seed=seed)
        needed = needed_ability(item, model_seed=seed, request_seed=request_seed)
        right = self._abilities[suite] > needed
        return SimulatedAnswer(item, right, item.target if right else self._slip(item))

    def _slip(self, item: BankItem) -> Any:
        """A wrong answer: a distractor, else another item's target, else none at all."""
        others = (other.target for other in self._bank.suites[item.suite][:200])
        options = [wrong for wrong in item.distractors if wrong != item.target]
        options = options or [target for target in others if target != item.target]
        pick = text_numbers.random_bits("slip", self.profile.seed, item.suite, item.id)
        return options[pick % len(options)] if options else "I do not know."
