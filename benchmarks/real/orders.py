"""The suite of the real run: orders of one sentence. A small model reads some of them right."""

import itertools
import json
import random
from pathlib import Path
from typing import Any, Final

ITEMS: Final = 120
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "city": {"type": "string"},
        "quantity": {"type": "integer"},
    },
    "required": ["name", "city", "quantity"],
    "additionalProperties": False,
}
FORMAT: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "order",
        "strict": True,
        "schema": SCHEMA,
    },
}
QUESTION: Final = "Read the order and return its name, city and quantity as JSON.\n\n"
MOST_TOKENS: Final = 64
_NAMES: Final = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Ivy",
)
_CITIES: Final = (
    "Paris",
    "London",
    "Berlin",
    "Madrid",
    "Rome",
    "Oslo",
    "Vienna",
    "Dublin",
)
_THINGS: Final = (
    "lamps",
    "chairs",
    "books",
    "cups",
    "shirts",
    "clocks",
    "towels",
)
_SENTENCES: Final = (
    "{name} from {city} ordered {quantity} {things}.",
    "Please send {quantity} {things} to {name} in {city}.",
    "{quantity} {things} go to {city}; the customer is {name}.",
)


def orders() -> list[dict[str, Any]]:
    """Generates the items, which are equal in every run."""
    chance = random.Random(2026)  # noqa: S311 - no secret
    chosen = chance.sample([*itertools.product(_NAMES, _CITIES, range(2, 10))], ITEMS)
    return [
        {
            "input": chance.choice(_SENTENCES).format(
                name=name,
                city=city,
                quantity=quantity,
                things=chance.choice(_THINGS),
            ),
            "target": {
                "name": name,
                "city": city,
                "quantity": quantity,
            },
            "metadata": {"schema": SCHEMA},
        }
        for name, city, quantity in chosen
    ]


def write_orders(file: Path) -> None:
    file.write_text("".join(f"{json.dumps(order)}\n" for order in orders()), "utf-8")


def suite(file: Path) -> dict[str, Any]:
    """Returns the suite's settings for `swapproof.yaml`."""
    return {
        "path": str(file),
        "scorer": "json_fields",
        "template": f"{QUESTION}{{input}}",
        "max_output_tokens": MOST_TOKENS,
        "request": {"response_format": FORMAT},
    }
