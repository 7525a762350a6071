"""A simulated model answers an item, right or plausibly wrong; its ability is fitted so that
its share of right answers on a whole suite is its profile's skill.

Skill is a one-parameter item-response model with shared luck: a model answers an item rightly
with probability `logistic(ability - hardness(difficulty))`, `hardness(d) = SLOPE * (d - 1/2)`
(Rasch 1960). It does so when its luck `u` on the item is below that:

    u = Φ(√SHARED·z₁ + √(1-SHARED-SEEDED)·z₂ + √SEEDED·z₃)

with standard normal z from hashes of the item (z₁), of model and item (z₂), and of both and
the request's `seed`, 0 where it has none (z₃). z₁ is the same for all models: what one misses
another tends to miss too, as with real models, and so pairing removes noise. The same seed
gives the same answer, in every process.

The item bank finds the item that a prompt asks for. A provider sees text only, so the bank
looks the prompt up whole, then searches it for items that a template wrapped. White space does
not matter.

Numbers come from a hash of given parts, so that every process draws the same ones.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from string import ascii_uppercase
from typing import Any

from pydantic import dataclasses as checked

from evals.sim.profiles import Profile, Share, parse
from evals.suites import items
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from harness.frame.plain_data import short_hash

STANDARD_NORMAL = NormalDist()
BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4


def random_bits(*parts: object) -> int:
    return int.from_bytes(short_hash("\x1f".join(map(str, parts))))


def uniform(*parts: object) -> float:
    """Draws a number in (0, 1), both ends left out, from these parts."""
    return ((random_bits(*parts) >> 12) + 0.5) / 2**52


def normal(*parts: object) -> float:
    return STANDARD_NORMAL.inv_cdf(uniform(*parts))


def count_tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def count_message_tokens(texts: Sequence[str]) -> int:
    return sum(count_tokens(text) + TOKENS_PER_MESSAGE for text in texts)


def cut(text: str, limit: int) -> str:
    return text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")


@checked.dataclass(frozen=True)
class BankItem:
    suite: str
    id: str
    input: str
    target: Any
    difficulty: Share = 0.5  # 0 (easy) to 1 (hard)
    distractors: tuple[Any, ...] = ()  # plausible wrong answers
    # `{"name": …, "arguments": {…}}` if the right answer is a call.
    tool_call: Mapping[str, Any] | None = None


def flatten_whitespace(text: str) -> str:
    return " ".join(text.split())


class ItemBank:
    """Holds all items of all suites. Where two have the same input, the first is kept.

    version: tells a bank with suites of a user's own from the others; empty without.
    """

    def __init__(self, items: Iterable[BankItem], version: str = "") -> None:
        self.version = version
        self.suites: dict[str, list[BankItem]] = {}
        self._exact: dict[str, BankItem] = {}
        for item in items:
            self._exact.setdefault(flatten_whitespace(item.input), item)
            self.suites.setdefault(item.suite, []).append(item)
        self._shortest = min(map(len, self._exact), default=0)

    def find(self, prompt: str) -> BankItem | None:
        """The item that the prompt asks, None if it holds none.

        Of several (worked examples before the question) the one that ends last, and of those
        the longest.
        """
        text = flatten_whitespace(prompt)
        if (exact := self._exact.get(text)) or len(text) < self._shortest:
            return exact
        found = [known for known in self._exact if known and known in text]
        best = max(found, key=lambda k: (text.rfind(k) + len(k), len(k)), default="")
        return self._exact.get(best)


Source = str | Path | SuiteSettings


def load_suites(sources: Iterable[Source]) -> list[BankItem]:
    return [item for source in sources for item in load_suite_items(source)]


def load_suite_items(source: Source) -> list[BankItem]:
    """Loads the items of one file: a path, `NAME=FILE`, or a suite's settings.

    Without a name the suite is called as the file, less its ending. A suite without a data
    file (an Inspect task) has no items here: its prompts are answered like unknown ones.
    """
    if not isinstance(source, SuiteSettings):
        given, _, file = str(source).rpartition("=")
        source = SuiteSettings(given or Path(file).stem, path=Path(file))
    if source.path is None:
        return []
    if not source.path.is_file():
        raise InputError(
            f"there is no suite file {source.path}; give an existing JSONL or CSV file"
        )
    read = items.load_items(
        source.path,
        name=source.name,
        input_field=source.input_field,
        target_field=source.target_field,
    )
    return [bank_item(item, suite=source.name, place=str(source.path)) for item in read]


def suite_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def bank_item(sample: items.Item, *, suite: str, place: str) -> BankItem:
    """Reads an item; its call is `metadata.tool_call`, or its target. Raises InputError."""
    known = sample.metadata
    calls = [
        call
        for call in (known.get("tool_call"), sample.target)
        if isinstance(call, dict) and {"name", "arguments"} == set(call)
    ]
    fields = {
        "suite": suite,
        "id": sample.id,
        "input": sample.input,
        "target": sample.target,
        "difficulty": known.get("difficulty", 0.5),
        "distractors": known.get("distractors", other_choices(sample)),
        "tool_call": calls[0] if calls else None,
    }
    return parse(BankItem, fields, f"{place}: item {sample.id}")


def other_choices(sample: items.Item) -> list[object]:
    choices = sample.choices
    places = range(len(choices))
    for options in (list(choices), list(ascii_uppercase[: len(choices)]), list(places)):
        if sample.target in options:
            return [option for option in options if option != sample.target]
    return []


SLOPE = 5.0
SHARED = 0.72
SEEDED = 0.04


def luck(item: BankItem, *, model_seed: int, request_seed: int = 0) -> float:
    """Draws `u` in (0, 1): uniform over items, correlated between models."""
    place = (item.suite, item.id)
    z = (
        math.sqrt(SHARED) * normal("item", *place)
        + math.sqrt(1 - SHARED - SEEDED) * normal("model", model_seed, *place)
        + math.sqrt(SEEDED) * normal("seed", model_seed, *place, request_seed)
    )
    # Beyond 8 standard deviations Φ rounds to 0 or 1, which has no logit.
    return STANDARD_NORMAL.cdf(max(-8.0, min(8.0, z)))


def needed_ability(item: BankItem, *, model_seed: int, request_seed: int = 0) -> float:
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
    item: BankItem
    right: bool
    value: Any  # the target, or a wrong answer of its type


class SimulatedModel:
    """Answers the items of a bank. Abilities are found when a suite is first asked for."""

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
        suite, seed = item.suite, self.profile.seed
        if suite not in self._abilities:
            items, share = self._bank.suites[suite], self.profile.skill_in(suite)
            self._abilities[suite] = ability_for(items, share=share, model_seed=seed)
        needed = needed_ability(item, model_seed=seed, request_seed=request_seed)
        right = self._abilities[suite] > needed
        return SimulatedAnswer(item, right, item.target if right else self._slip(item))

    def _slip(self, item: BankItem) -> Any:
        others = (other.target for other in self._bank.suites[item.suite][:200])
        options = [wrong for wrong in item.distractors if wrong != item.target]
        options = options or [target for target in others if target != item.target]
        pick = random_bits("slip", self.profile.seed, item.suite, item.id)
        return options[pick % len(options)] if options else "I do not know."
