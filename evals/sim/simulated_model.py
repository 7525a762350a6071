"""A simulated model answers an item, right or plausibly wrong.

Its ability is fitted to the profile's skill: the share of right answers on a whole suite. The
model is a one-parameter item-response model with shared luck (Rasch 1960). The probability of a
right answer is `logistic(ability - hardness(difficulty))`, with
`hardness(d) = SLOPE * (d - 1/2)`. The answer is right if the luck `u` on the item is below it:

    u = Φ(√SHARED·z₁ + √(1-SHARED-SEEDED)·z₂ + √SEEDED·z₃)

The z are standard normal numbers from hashes: z₁ of the item, z₂ of model and item, and z₃ of
model, item and the request's `seed` or 0. z₁ is the same for all models: as with real models,
two models tend to miss the same items, so that pairing removes noise. The same seed gives the
same answer in every process, because all random numbers are hashes.

A provider sees only text. The item bank therefore looks up the whole prompt, then searches it
for items that a template wrapped. White space does not matter.
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
    """Draws 64 bits that depend only on the parts."""
    return int.from_bytes(short_hash("\x1f".join(map(str, parts))))


def uniform(*parts: object) -> float:
    """Draws a number in the open interval (0, 1) from these parts."""
    return ((random_bits(*parts) >> 12) + 0.5) / 2**52


def normal(*parts: object) -> float:
    """Draws a standard normal number from these parts."""
    return STANDARD_NORMAL.inv_cdf(uniform(*parts))


def count_tokens(text: str) -> int:
    """Estimates a text's tokens, at `BYTES_PER_TOKEN` bytes each, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def count_message_tokens(texts: Sequence[str]) -> int:
    return sum(count_tokens(text) + TOKENS_PER_MESSAGE for text in texts)


def cut(text: str, limit: int) -> str:
    """Cuts a text after `limit` tokens, as `count_tokens` counts them."""
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
    """The items of all suites. Of two items with the same input, it finds the first.

    version: identifies a user's own suites; empty without any.
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
        """Returns the item in the prompt, or None.

        Worked examples may precede the question. So the item that ends last counts; if several
        end there, the longest.
        """
        text = flatten_whitespace(prompt)
        if (exact := self._exact.get(text)) or len(text) < self._shortest:
            return exact
        matches = [known for known in self._exact if known and known in text]
        best = max(
            matches, key=lambda known: (text.rfind(known) + len(known), len(known)), default=""
        )
        return self._exact.get(best)


Source = str | Path | SuiteSettings


def load_suites(sources: Iterable[Source]) -> list[BankItem]:
    return [item for source in sources for item in load_suite_items(source)]


def load_suite_items(source: Source) -> list[BankItem]:
    """Loads the items of one file: a path, `NAME=FILE`, or a suite's settings.

    Without a name, the suite has the file's name without suffix. A suite without a data file
    (an Inspect task) has no items here, so the simulator does not know its prompts.
    """
    if not isinstance(source, SuiteSettings):
        name, _, file = str(source).rpartition("=")
        source = SuiteSettings(name or Path(file).stem, path=Path(file))
    if source.path is None:
        return []
    if not source.path.is_file():
        raise InputError(
            f"there is no suite file {source.path}; give an existing JSONL or CSV file"
        )
    suite_items = items.load_items(
        source.path,
        name=source.name,
        input_field=source.input_field,
        target_field=source.target_field,
    )
    return [bank_item(item, suite=source.name, place=str(source.path)) for item in suite_items]


def suite_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def bank_item(
    sample: items.Item,
    *,
    suite: str,
    place: str,
) -> BankItem:
    """Reads an item. Its call is `metadata.tool_call` or its target. Raises InputError."""
    metadata = sample.metadata
    calls = [
        call
        for call in (metadata.get("tool_call"), sample.target)
        if isinstance(call, dict) and {"name", "arguments"} == set(call)
    ]
    fields = {
        "suite": suite,
        "id": sample.id,
        "input": sample.input,
        "target": sample.target,
        "difficulty": metadata.get("difficulty", 0.5),
        "distractors": metadata.get("distractors", other_choices(sample)),
        "tool_call": calls[0] if calls else None,
    }
    return parse(BankItem, fields, f"{place}: item {sample.id}")


def other_choices(sample: items.Item) -> list[object]:
    """Lists the wrong choices of a multiple-choice item, in the form of its target: the texts,
    the letters or the places. Empty if the target is in another form.
    """
    choices = sample.choices
    places = range(len(choices))
    for options in (
        list(choices),
        list(ascii_uppercase[: len(choices)]),
        list(places),
    ):
        if sample.target in options:
            return [option for option in options if option != sample.target]
    return []


SLOPE = 5.0
SHARED = 0.72
SEEDED = 0.04


def luck(
    item: BankItem,
    *,
    model_seed: int,
    request_seed: int = 0,
) -> float:
    """Draws `u` in (0, 1): uniform over items, correlated between models."""
    place = (item.suite, item.id)
    z = (
        math.sqrt(SHARED) * normal("item", *place)
        + math.sqrt(1 - SHARED - SEEDED) * normal("model", model_seed, *place)
        + math.sqrt(SEEDED) * normal("seed", model_seed, *place, request_seed)
    )
    # Beyond 8 standard deviations Φ rounds to 0 or 1, which has no logit.
    return STANDARD_NORMAL.cdf(max(-8.0, min(8.0, z)))


def needed_ability(
    item: BankItem,
    *,
    model_seed: int,
    request_seed: int = 0,
) -> float:
    """Returns the ability above which the model answers this item right."""
    u = luck(item, model_seed=model_seed, request_seed=request_seed)
    return SLOPE * (item.difficulty - 0.5) + math.log(u / (1 - u))


def ability_for(
    items: Sequence[BankItem],
    *,
    share: float,
    model_seed: int,
) -> float:
    """Returns the ability with `round(share * n)` right answers to the n items at seed 0.

    So a profile's skill is its accuracy on the whole suite; a part of the suite may differ.
    """
    needed = sorted(needed_ability(item, model_seed=model_seed) for item in items)
    bounds = [-math.inf, *needed, math.inf]
    right = round(share * len(needed))
    return (bounds[right] + bounds[right + 1]) / 2


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """The outcome of one item."""

    item: BankItem
    right: bool
    value: Any  # the target if right, else a wrong answer of the target's type


class SimulatedModel:
    """Answers the items of a bank. It fits its ability on a suite's first use."""

    def __init__(self, profile: Profile, bank: ItemBank) -> None:
        self.profile = profile
        self.fingerprint = profile.fingerprint
        if bank.version and not profile.build:
            # The fingerprint must differ, because the user's items change the answers.
            self.fingerprint += f"-{bank.version}"
        self._bank = bank
        self._abilities: dict[str, float] = {}

    def sit(self, item: BankItem, *, request_seed: int = 0) -> SimulatedAnswer:
        """Decides whether the model answers the item right, and with which value.

        Args:
            request_seed: the request's `seed`; the same seed gives the same answer.
        """
        suite = item.suite
        seed = self.profile.seed
        if suite not in self._abilities:
            items = self._bank.suites[suite]
            share = self.profile.skill_in(suite)
            self._abilities[suite] = ability_for(items, share=share, model_seed=seed)
        needed = needed_ability(item, model_seed=seed, request_seed=request_seed)
        right = self._abilities[suite] > needed
        return SimulatedAnswer(
            item, right, item.target if right else self._choose_wrong_answer(item)
        )

    def _choose_wrong_answer(self, item: BankItem) -> Any:
        """Chooses a wrong answer: a distractor of the item, else the target of another item."""
        targets = (entry.target for entry in self._bank.suites[item.suite][:200])
        options = [wrong for wrong in item.distractors if wrong != item.target]
        options = options or [target for target in targets if target != item.target]
        bits = random_bits("slip", self.profile.seed, item.suite, item.id)
        return options[bits % len(options)] if options else "I do not know."
