"""A suite about colours, and models that answer it.

Every item's answer is right or wrong by a rule on its number, so that verdicts are known.
"""

import json
from pathlib import Path

from evals.suites.items import Item
from harness.providers.target import Target

ITEMS = 60
# Share of items that each model answers rightly, in twelfths.
SKILL = {
    "base": 7,
    "good": 10,
    "better": 12,
    "worse": 2,
    "equal": 7,
}


def answer(
    target: Target,
    item: Item,
    _epoch: int,
) -> str:
    number = int(item.id.rpartition("-")[2])
    right = number * 5 % 12 < SKILL[target.model]
    return str(item.target) if right else "wrong"


def suite_file(folder: Path) -> Path:
    file = folder / "colours.jsonl"
    lines = [
        json.dumps(
            {
                "id": f"colour-{n}",
                "input": f"Colour number {n}?",
                "target": f"c{n}",
            }
        )
        for n in range(ITEMS)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
