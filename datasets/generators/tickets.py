"""Support tickets to be routed to one of eight queues.

Difficulty counts what stands between the text and the label: a veiled wording, a second topic
(with the main one stated), a denied topic whose words mislead, and how many of the queue's own
words are there. No ticket above 0.5 contains a word of its own queue's `KEYWORDS`.
"""

import re
from collections.abc import Sequence
from random import Random

from generators.extraction_fields import CITIES, GOODS, code
from generators.items import Author, Item, graded
from generators.stories import NAMES
from generators.tickets_wording import DEFINITIONS, KEYWORDS, NEIGHBOURS, WORDINGS

OPENINGS = (
    "Hello,",
    "Hi team,",
    "Good morning.",
    "Dear support,",
    "Me again.",
    "First of all: I like your product.",
    "I hope that this reaches the right person.",
    "Short one today.",
)
CLOSINGS = (
    "Thanks!",
    "Regards, {me}",
    "{me}, {home}",
    "Please answer before {time}.",
    "I look forward to hearing from you.",
    "Sent from my phone",
    "Thank you for your patience with me.",
)
CHATTER = (
    "We have been customers since {year}.",
    "I wrote about this {few} days ago and got no answer.",
    "Your chat robot sent me here.",
    "I am not very technical, so bear with me.",
    "My manager has asked me twice already.",
    "It is not a catastrophe, but it is a nuisance.",
)
TWO_TOPICS = (
    "{main} That is what I need you to act on. Besides, {aside}.",
    "You will hear about this separately: {aside}. This ticket has another reason. {main}",
    "Two things. One can wait: {aside}. The other cannot. {main}",
    "{main} (For information only, no action needed: {aside}.)",
    "Before I forget it, {aside}; please leave that aside for now. What matters today: {main}",
    "It is true that {aside}. I have learned to live with it. My real concern is this. {main}",
)
SCREENS = (
    "dashboard",
    "report page",
    "inbox",
    "time sheet",
    "stock list",
    "order form",
    "address book",
)
MONTHS = ("January", "March", "April", "June", "August", "October", "November")


def slots(rng: Random) -> dict[str, str]:
    """Fresh values for every slot of a wording."""
    return {
        "amount": f"{rng.choice('€$£')}{rng.randint(12, 480)}.{rng.choice(('00', '50', '90'))}",
        "browser": rng.choice(("Firefox", "Safari", "Chrome", "Edge")),
        "city": rng.choice(CITIES),
        "code": code("??-####")(rng),
        "count": str(rng.randint(11, 60)),
        "few": str(rng.randint(4, 9)),
        "home": rng.choice(CITIES),
        "item": rng.choice(GOODS),
        "me": rng.choice(NAMES),
        "month": rng.choice(MONTHS),
        "name": rng.choice(NAMES),
        "plan": rng.choice(("Team", "Studio", "Plus", "Office")),
        "screen": rng.choice(SCREENS),
        "time": f"{rng.randint(7, 18)}:{rng.choice(('00', '10', '20', '40'))}",
        "year": str(rng.randint(2015, 2024)),
    }


def gives_away(text: str, label: str) -> bool:
    """Whether the text contains a word that belongs to the label."""
    return any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in KEYWORDS[label])


def prompt(ticket: str) -> str:
    queues = "\n".join(f"- {label}: {meaning}" for label, meaning in DEFINITIONS.items())
    return (
        f"Route this support ticket to one queue.\n\n{queues}\n\nTicket:\n{ticket}\n\n"
        "Answer with the label of the queue for its main topic, and nothing else."
    )


def write(rng: Random, label: str) -> Item | None:
    """One ticket for the queue; None if a hard one would give itself away."""
    veiled, second, denied = rng.random() < 0.6, rng.random() < 0.5, rng.random() < 0.35
    own, (near, *others) = WORDINGS[label], rng.sample(NEIGHBOURS[label], 3)
    other = near if rng.random() < 0.7 else others[0]
    main = rng.choice(own.veiled if veiled else own.plain)
    points = 0.1 + 0.3 * veiled + 0.25 * second + 0.15 * denied
    if second:
        form = rng.choice(TWO_TOPICS)
        aside = rng.choice(WORDINGS[other].aside).format_map(slots(rng))
        main = form.replace("{main}", main).replace("{aside}", aside)
    parts = [main]
    if rng.random() < 0.6:
        parts.append(rng.choice(own.detail) if not second else rng.choice(CHATTER))
        points -= 0.05 * (not second)
    elif rng.random() < 0.5:
        parts.insert(0, rng.choice(CHATTER))
    if denied:
        parts.insert(rng.randint(0, 1), rng.choice(WORDINGS[others[-1]].denied))
    if rng.random() < 0.7:
        parts.insert(0, rng.choice(OPENINGS))
    if rng.random() < 0.7:
        parts.append(rng.choice(CLOSINGS))
    ticket = " ".join(parts).format_map(slots(rng))
    given = gives_away(ticket, label)
    if points > 0.5 and given:
        return None
    points += 0.15 * (not given)
    marks = {"veiled": veiled, "two-topics": second, "denied-topic": denied, "keyword": given}
    wrong = dict.fromkeys([other, others[-1], *NEIGHBOURS[label]])
    return Item(
        input=prompt(ticket),
        story=ticket,
        target=label,
        difficulty=graded(points),
        tags=(label, *(mark for mark, there in marks.items() if there)),
        distractors=tuple(wrong),
    )


def authors() -> Sequence[Author]:
    """One author per queue."""

    def author(label: str) -> Author:
        return lambda rng: write(rng, label)

    return [author(label) for label in DEFINITIONS]
