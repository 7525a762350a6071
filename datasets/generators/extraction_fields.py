"""The kinds of fields in a business text: what a value is and how it is said."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from generators import extraction_writing as writing

PEOPLE = (
    "Aylin Demir",
    "Bernard Okafor",
    "Clara Lindqvist",
    "Dmitri Volkov",
    "Elena Marsh",
    "Felix Aubert",
    "Grace Tan",
    "Hugo Bartels",
    "Ines Carvalho",
    "Jamal Reyes",
    "Katrin Vogt",
    "Liam O'Dell",
    "Mina Park",
    "Noor Haddad",
    "Olga Simic",
    "Pavel Dvorak",
    "Renata Costa",
    "Soren Holt",
    "Tessa Quill",
    "Umar Aziz",
)
FIRMS = (
    "Northgate Supplies",
    "Bluefin Analytics",
    "Kestrel & Sons",
    "Orchard Lane Foods",
    "Halden Instruments",
    "Pinewood Furniture",
    "Cobalt Print House",
    "Verdant Seeds Ltd",
    "Marlow Textiles",
    "Summit Bike Works",
    "Larkspur Dental",
    "Ironbridge Tools",
    "Solstice Lighting",
    "Quarry Road Bakery",
    "Tidewater Logistics",
)
GOODS = (
    "desk lamp",
    "standing desk",
    "label printer",
    "water filter",
    "office chair",
    "espresso machine",
    "hand truck",
    "wireless headset",
    "document scanner",
    "air purifier",
    "tool cabinet",
    "monitor arm",
    "coffee grinder",
    "packing table",
    "thermal camera",
    "extension ladder",
)
CITIES = (
    "Rotterdam",
    "Leeds",
    "Turin",
    "Aarhus",
    "Lyon",
    "Gdansk",
    "Graz",
    "Bilbao",
    "Cork",
    "Leipzig",
    "Ghent",
    "Malmo",
    "Porto",
    "Basel",
)
CARRIERS = ("Swiftline", "Polar Freight", "Meridian Parcel", "Redwing Express", "Coastal Cargo")
PLACES = (
    "Room 4B",
    "Harbour House",
    "Building C",
    "12 Mill Street",
    "Annex B",
    "Room 210",
)
CURRENCIES = ("EUR", "USD", "GBP", "CHF")

Say = Callable[[Random, Any, str], tuple[str, bool]]
Make = Callable[[Random], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One key of the answer.

    labels: how a form names it; sentences: how prose says it, each with one `{v}`.
    told: for an enum, the sentences of each value (the value's own word need not occur).
    optional: the text may leave it out; the answer then has null.
    """

    key: str
    asks: str
    schema: dict[str, Any]
    make: Make
    say: Say
    labels: tuple[str, ...]
    sentences: tuple[str, ...] = ()
    told: dict[str, tuple[str, ...]] = field(default_factory=dict)
    optional: bool = False

    def json_schema(self) -> dict[str, Any]:
        if not self.optional:
            return self.schema
        if "enum" in self.schema:
            return {**self.schema, "enum": [*self.schema["enum"], None]}
        return {**self.schema, "type": [self.schema["type"], "null"]}


@dataclass(frozen=True, slots=True)
class Kind:
    """decoys: (key, remark with `{v}`): the remark shows a wrong value for that key."""

    name: str
    title: tuple[str, ...]
    fields: tuple[Field, ...]
    decoys: tuple[tuple[str, str], ...]


def plain(_: Random, value: Any, __: str) -> tuple[str, bool]:
    return str(value), False


def one_of(*values: str) -> Make:
    return lambda rng: rng.choice(values)


def code(pattern: str) -> Make:
    """A reference: `#` becomes a digit, `?` a capital letter."""

    def make(rng: Random) -> str:
        swap = {"#": "0123456789", "?": "ABCDEFGHJKLMNPRSTUVWXYZ"}
        return "".join(rng.choice(swap[c]) if c in swap else c for c in pattern)

    return make


def text_field(
    key: str,
    asks: str,
    make: Make,
    labels: tuple[str, ...],
    sentences: tuple[str, ...],
    *,
    optional: bool = False,
) -> Field:
    schema = {"type": "string", "minLength": 1}
    return Field(key, asks, schema, make, plain, labels, sentences, optional=optional)


def date_field(
    key: str,
    asks: str,
    labels: tuple[str, ...],
    sentences: tuple[str, ...],
    *,
    optional: bool = False,
) -> Field:
    schema = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}

    def say(rng: Random, value: Any, _: str) -> tuple[str, bool]:
        return writing.date_text(rng, value)

    asks = f"{asks}, as YYYY-MM-DD"
    return Field(
        key, asks, schema, writing.some_date, say, labels, sentences, optional=optional
    )


def money_field(
    key: str, asks: str, make: Make, labels: tuple[str, ...], sentences: tuple[str, ...]
) -> Field:
    schema = {"type": "number", "minimum": 0}

    def say(rng: Random, value: Any, currency: str) -> tuple[str, bool]:
        return writing.money_text(rng, value, currency)

    return Field(key, f"{asks}, a number", schema, make, say, labels, sentences)


def count_field(
    key: str, asks: str, make: Make, labels: tuple[str, ...], sentences: tuple[str, ...]
) -> Field:
    schema = {"type": "integer", "minimum": 1}

    def say(rng: Random, value: Any, _: str) -> tuple[str, bool]:
        return writing.count_text(rng, value)

    return Field(key, f"{asks}, an integer", schema, make, say, labels, sentences)


def enum_field(
    key: str,
    asks: str,
    labels: tuple[str, ...],
    told: dict[str, tuple[str, ...]],
    *,
    optional: bool = False,
) -> Field:
    schema = {"enum": list(told)}
    asks = f"{asks}: one of {', '.join(told)}"
    make = one_of(*told)
    return Field(key, asks, schema, make, plain, labels, told=told, optional=optional)


def amount(low: int, high: int) -> Make:
    return lambda rng: rng.randrange(low * 100, high * 100, 5) / 100


def between(low: int, high: int) -> Make:
    return lambda rng: rng.randint(low, high)


# Money is written with its currency; the key itself is never a line of the text.
CURRENCY = Field(
    "currency",
    "ISO code of the currency: one of EUR, USD, GBP, CHF",
    {"enum": list(CURRENCIES)},
    one_of(*CURRENCIES),
    plain,
    (),
)
