"""Business texts with one JSON object to be read from them.

Three layouts: a form (shuffled `label: value` lines), a letter (sentences in any order) and a
thread (a letter above an older quoted mail). Remarks ("decoys") show wrong values of the same
kind; an optional value may be missing and is null then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from generators import extraction_letters, extraction_trade
from generators.extraction_fields import Field, Kind
from generators.items import Author, Item, graded

KINDS = (*extraction_trade.KINDS, *extraction_letters.KINDS)
GREETINGS = (
    "Hello,",
    "Dear colleagues,",
    "Good morning,",
    "Hi there,",
    "To whom it may concern,",
)
CLOSINGS = ("Kind regards", "Thank you.", "Best wishes", "Many thanks in advance.", "Yours")
CHATTER = (
    "Hope you are well.",
    "Sorry for the long silence.",
    "The attachment could not be opened, so I write it out.",
    "Please do not answer to this address.",
    "As said on the phone, here are the details.",
    "I am writing this on the train, so forgive typing errors.",
    "There is nothing else to mention.",
    "The weather has slowed everything down here.",
)
ABSENT = ("to follow", "-", "n/a", "not known yet")
LAYOUT_POINTS = {"form": 0.05, "letter": 0.15, "thread": 0.25}


@dataclass(slots=True)
class Draft:
    """A text in the making. hard: how many values are not written as asked for."""

    lines: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)
    hard: int = 0
    decoys: dict[str, Any] = field(default_factory=dict)


def facts(rng: Random, kind: Kind) -> dict[str, Any]:
    """The answer: each field's value, an optional one null in a third of the cases."""
    values = {f.key: f.make(rng) for f in kind.fields}
    if kind.name == "invoice":
        values["total"] = round(values["subtotal"] * rng.choice((1.07, 1.19, 1.2, 1.081)), 2)
        values["due_date"] = later(rng, values["issue_date"], 10, 45)
    if kind.name == "shipping-note":
        values["expected_date"] = later(rng, values["ship_date"], 2, 9)
    for f in kind.fields:
        if f.optional and rng.random() < 0.33:
            values[f.key] = None
    return values


def later(rng: Random, iso: str, low: int, high: int) -> str:
    day = date.fromisoformat(iso) + timedelta(days=rng.randint(low, high))
    return day.isoformat()


def sentence(rng: Random, f: Field, value: Any, currency: str) -> tuple[str, bool]:
    if f.told:
        return rng.choice(f.told[value]), True
    text, hard = f.say(rng, value, currency)
    said = rng.choice(f.sentences).replace("{v}", text)
    return said[0].upper() + said[1:], hard


def add_facts(
    rng: Random, kind: Kind, values: dict[str, Any], draft: Draft, layout: str
) -> None:
    currency = values.get("currency") or "EUR"
    for f in kind.fields:
        value = values[f.key]
        if f.key == "currency":
            continue
        if value is None:
            if layout == "form" and rng.random() < 0.5:
                draft.lines.append(f"{rng.choice(f.labels)}: {rng.choice(ABSENT)}")
            draft.hard += 1
            continue
        if layout == "form":
            text, hard = f.say(rng, value, currency)
            draft.lines.append(f"{rng.choice(f.labels)}: {text}")
        else:
            text, hard = sentence(rng, f, value, currency)
            draft.lines.append(text)
        draft.hard += int(hard)


def add_decoys(
    rng: Random, kind: Kind, values: dict[str, Any], draft: Draft, count: int
) -> None:
    """Remarks with a wrong value; at most one per key, never the right value itself."""
    remarks = list(kind.decoys)
    rng.shuffle(remarks)
    by_key = {f.key: f for f in kind.fields}
    for key, remark in remarks:
        if len(draft.decoys) == count:
            return
        wrong = by_key[key].make(rng)
        if key in draft.decoys or wrong in values.values():
            continue
        text, _ = by_key[key].say(rng, wrong, values.get("currency") or "EUR")
        said = remark.replace("{v}", text)
        draft.decoys[key] = wrong
        draft.older.append(said[0].upper() + said[1:])


def laid_out(rng: Random, kind: Kind, draft: Draft, layout: str) -> str:
    """The text as its reader sees it."""
    title = rng.choice(kind.title)
    rng.shuffle(draft.lines)
    if layout == "form":
        notes = [f"Note: {remark}" for remark in draft.older]
        return "\n".join([title.upper(), *draft.lines, *notes])
    greeting, closing = rng.choice(GREETINGS), rng.choice(CLOSINGS)
    chatter = rng.sample(CHATTER, rng.randint(0, 2))
    if layout == "letter":
        body = draft.lines + draft.older + chatter
        rng.shuffle(body)
        cut = rng.randint(2, len(body) - 2)
        paragraphs = [" ".join(body[:cut]), " ".join(body[cut:])]
        return "\n\n".join([greeting, *paragraphs, closing])
    quoted = "\n".join(f"> {remark}" for remark in draft.older)
    body = draft.lines + chatter
    rng.shuffle(body)
    reply = " ".join(body)
    return f"Subject: {title}\n\n{greeting}\n{reply}\n{closing}\n\n> earlier mail:\n{quoted}"


def swapped(kind: Kind, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Objects in which two values of the same kind changed places."""
    pairs = (("subtotal", "total"), ("issue_date", "due_date"), ("ship_date", "expected_date"))
    keys = {f.key for f in kind.fields}
    return [
        {**values, a: values[b], b: values[a]}
        for a, b in pairs
        if {a, b} <= keys and values[a] is not None and values[b] is not None
    ]


def changed(rng: Random, kind: Kind, values: dict[str, Any], key: str) -> dict[str, Any]:
    """The object with another value for one key; an optional value may get lost."""
    f = next(f for f in kind.fields if f.key == key)
    if f.optional and values[key] is not None and rng.random() < 0.5:
        return {**values, key: None}
    other = f.make(rng)
    while other == values[key]:
        other = f.make(rng)
    return {**values, key: other}


def wrong_objects(
    rng: Random, kind: Kind, values: dict[str, Any], draft: Draft
) -> tuple[dict[str, Any], ...]:
    """Three objects: decoys taken for the value first, then swaps, then slips."""
    found = [{**values, key: wrong} for key, wrong in draft.decoys.items()]
    found += swapped(kind, values)
    keys = [f.key for f in kind.fields if f.told or f.key == "currency" or f.optional]
    rng.shuffle(keys)
    found += [changed(rng, kind, values, key) for key in keys]
    return tuple(found[:3])


def request(kind: Kind) -> str:
    keys = "\n".join(f"- {f.key}: {f.asks}" for f in kind.fields)
    return (
        "Read the text between the lines of dashes. Answer with one JSON object and nothing"
        f" else, with exactly these keys (null where the text gives no value):\n{keys}"
    )


def schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema of the answer."""
    return {
        "type": "object",
        "properties": {f.key: f.json_schema() for f in kind.fields},
        "required": [f.key for f in kind.fields],
        "additionalProperties": False,
    }


def write(rng: Random, kind: Kind) -> Item:
    """One item. Difficulty: layout, values written differently or missing, decoys."""
    layout = rng.choice(("form", "form", "letter", "letter", "thread"))
    count = {
        "form": rng.randint(0, 1),
        "letter": rng.randint(0, 3),
        "thread": rng.randint(2, 4),
    }
    draft, values = Draft(), facts(rng, kind)
    add_facts(rng, kind, values, draft, layout)
    add_decoys(rng, kind, values, draft, count[layout])
    nulls = sum(1 for value in values.values() if value is None)
    points = LAYOUT_POINTS[layout] + 0.06 * draft.hard + 0.1 * len(draft.decoys)
    story = laid_out(rng, kind, draft, layout)
    return Item(
        input=f"{request(kind)}\n\n-----\n{story}\n-----",
        story=story,
        target=values,
        difficulty=graded(points),
        tags=(kind.name, layout, f"decoys-{len(draft.decoys)}", f"nulls-{nulls}"),
        distractors=wrong_objects(rng, kind, values, draft),
        extra={"schema": schema(kind)},
    )


def authors() -> Sequence[Author]:
    """One author per kind of text."""

    def author(kind: Kind) -> Author:
        return lambda rng: write(rng, kind)

    return [author(kind) for kind in KINDS]
