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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.sim import text_numbers
from evals.sim.item_bank import BankItem, ItemBank
from evals.sim.profiles import Profile

SLOPE = 5.0
SHARED = 0.72
SEEDED = 0.04


def hardness(difficulty: float) -> float:
    """Puts an item's difficulty on the logit scale: 0 for a middling one."""
    return SLOPE * (difficulty - 0.5)


def luck(item: BankItem, *, model_seed: int, request_seed: int = 0) -> float:
    """Draws `u` in (0, 1): uniform over items, correlated between models."""
    shared = text_numbers.normal("item", item.suite, item.id)
    own = text_numbers.normal("model", model_seed, item.suite, item.id)
    seeded = text_numbers.normal("seed", model_seed, item.suite, item.id, request_seed)
    z = (
        math.sqrt(SHARED) * shared
        + math.sqrt(1 - SHARED - SEEDED) * own
        + math.sqrt(SEEDED) * seeded
    )
    # Beyond 8 standard deviations Φ rounds to 0 or 1, which has no logit.
    return text_numbers.STANDARD_NORMAL.cdf(max(-8.0, min(8.0, z)))


def needed_ability(item: BankItem, *, model_seed: int, request_seed: int = 0) -> float:
    """The ability from which on the model answers this item rightly."""
    u = luck(item, model_seed=model_seed, request_seed=request_seed)
    return hardness(item.difficulty) + math.log(u / (1 - u))


def ability_for(items: Sequence[BankItem], *, share: float, model_seed: int) -> float:
    """The ability at which the model gets `round(share * n)` of the n items right at seed 0.

    So a profile's skill is its accuracy on the whole suite. A part of the suite differs from
    it by sampling, as it should.
    """
    needed = sorted(needed_ability(item, model_seed=model_seed) for item in items)
    right = round(share * len(needed))
    if right == 0:
        return -math.inf
    if right == len(needed):
        return math.inf
    return (needed[right - 1] + needed[right]) / 2


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

    def ability(self, suite: str) -> float:
        """Finds the model's ability, on the logit scale, at which the whole suite comes out at
        the profile's skill.
        """
        if suite not in self._abilities:
            self._abilities[suite] = ability_for(
                self._bank.suites[suite],
                share=self.profile.skill_in(suite),
                model_seed=self.profile.seed,
            )
        return self._abilities[suite]

    def sit(self, item: BankItem, *, request_seed: int = 0) -> SimulatedAnswer:
        """Answers one item: the same for the same item and request seed, in every process."""
        seed = self.profile.seed
        needed = needed_ability(item, model_seed=seed, request_seed=request_seed)
        if self.ability(item.suite) > needed:
            return SimulatedAnswer(item, right=True, value=item.target)
        return SimulatedAnswer(item, right=False, value=self._slip(item))

    def _slip(self, item: BankItem) -> Any:
        """A wrong answer: a distractor, else another item's target, else none at all."""
        options = [wrong for wrong in item.distractors if wrong != item.target]
        if not options:
            others = self._bank.suites[item.suite]
            options = [o.target for o in others[:200] if o.target != item.target]
        if not options:
            return "I do not know."
        pick = text_numbers.random_bits("slip", self.profile.seed, item.suite, item.id)
        return options[pick % len(options)]


def build_models(profiles: Mapping[str, Profile], bank: ItemBank) -> dict[str, SimulatedModel]:
    """Builds the models by the name that clients use, which after a swap is not the
    profile's.
    """
    return {name: SimulatedModel(profile, bank) for name, profile in profiles.items()}
