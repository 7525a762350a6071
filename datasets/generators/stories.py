"""A word problem in the making: the dice of its author, and the story that results."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")

NAMES = (
    "Amara",
    "Bela",
    "Chidi",
    "Daria",
    "Emeka",
    "Farid",
    "Greta",
    "Hana",
    "Idris",
    "Jonas",
    "Kavya",
    "Leila",
    "Mateo",
    "Nadia",
    "Oskar",
    "Priya",
    "Quentin",
    "Rosa",
    "Samir",
    "Tomas",
    "Ursula",
    "Viktor",
    "Wanda",
    "Ximena",
    "Yusuf",
    "Zofia",
    "Anders",
    "Bianca",
    "Caleb",
    "Delia",
    "Enzo",
    "Fiona",
    "Gustav",
    "Helga",
    "Ivan",
    "Julia",
    "Karim",
    "Lotte",
    "Marek",
    "Noemi",
)


@dataclass(frozen=True, slots=True)
class Story:
    """text ends with the question; wrong: expressions of typical slips.

    whole: parts of the expression that must be positive integers (people, boxes).
    cents: parts that must come out in whole cents.
    idle_numbers: how many numbers of the text are of no use.
    conversions: how many times a unit has to be changed.
    """

    family: str
    text: str
    expression: str
    wrong: tuple[str, ...]
    money: bool = False
    whole: tuple[str, ...] = ()
    cents: tuple[str, ...] = ()
    idle_numbers: int = 0
    conversions: int = 0

    def tags(self) -> tuple[str, ...]:
        marks = {
            "money": self.money,
            "percentage": "%" in self.text,
            "idle-number": self.idle_numbers > 0,
            "units": self.conversions > 0,
        }
        return tuple(mark for mark, there in marks.items() if there)


class Draw:
    """Seeded choices, named as the authors need them."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.idle_numbers = 0

    def pick(self, *options: T) -> T:
        return self._rng.choice(options)

    def num(self, low: int, high: int, step: int = 1) -> int:
        return self._rng.randrange(low, high + 1, step)

    def price(self, low: int, high: int) -> str:
        """A price in [low, high] as `3.45`: mostly in steps of ten or five cents."""
        cents = self._rng.randrange(low * 100, high * 100 + 1, self.pick(5, 10, 25, 50))
        return f"{cents / 100:.2f}"

    def names(self, count: int) -> list[str]:
        return self._rng.sample(NAMES, count)

    def some(self, options: Sequence[T], count: int) -> list[T]:
        return self._rng.sample(options, count)

    def maybe(self, chance: float = 0.5) -> bool:
        return self._rng.random() < chance

    def tell(self, *sentences: str, idle: Sequence[str] = ()) -> str:
        """The sentences as one text; at times an idle one slips in before the question."""
        said = [s for s in sentences if s]
        if idle and self.maybe(0.4):
            said.insert(self.num(1, len(said) - 1), self.pick(*idle))
            self.idle_numbers = 1
        return " ".join(said)
