"""A simulated model at work: from an item to its answer, right or plausibly wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evals.sim import seeded_random, skill
from evals.sim.item_bank import BankItem, ItemBank
from evals.sim.profiles import Profile


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """What the model makes of an item. value: the target, or a wrong answer of its type."""

    item: BankItem
    right: bool
    value: Any


class SimulatedModel:
    """One profile before one bank. Abilities are found when a suite is first asked for."""

    def __init__(self, profile: Profile, bank: ItemBank) -> None:
        self.profile = profile
        self.fingerprint = profile.fingerprint
        self._bank = bank
        self._abilities: dict[str, float] = {}

    def ability(self, suite: str) -> float:
        """On the logit scale, such that the whole suite comes out at the profile's skill."""
        if suite not in self._abilities:
            self._abilities[suite] = skill.ability_for(
                self._bank.suites[suite],
                share=self.profile.skill_in(suite),
                model_seed=self.profile.seed,
            )
        return self._abilities[suite]

    def sit(self, item: BankItem, *, request_seed: int = 0) -> SimulatedAnswer:
        """Answer one item: the same for the same item and request seed, in every process."""
        seed = self.profile.seed
        needed = skill.needed_ability(item, model_seed=seed, request_seed=request_seed)
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
        pick = seeded_random.random_bits("slip", self.profile.seed, item.suite, item.id)
        return options[pick % len(options)]


def build_models(profiles: Mapping[str, Profile], bank: ItemBank) -> dict[str, SimulatedModel]:
    """By the model name that clients use, which after a swap is not the profile's."""
    return {name: SimulatedModel(profile, bank) for name, profile in profiles.items()}
