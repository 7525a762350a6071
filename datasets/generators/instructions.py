"""Writing tasks with two to four rules that a program can check.

The target is a model answer that keeps all rules, each distractor breaks at least one; both are
checked here with `rules.broken`. Difficulty: what each rule costs a writer, tight word ranges
and rules that pull against each other.
"""

from collections.abc import Sequence
from dataclasses import asdict
from math import fsum
from random import Random

from generators.instructions_topics import (
    ENDINGS,
    EXCUSES,
    OPENERS,
    POINTS,
    READERS,
    SENTENCES,
    TASKS,
    TOPICS,
    Topic,
)
from generators.items import Author, Item, graded
from generators.rules import Rule, broken, has_word, worded, words

# A form fixes the outline of the answer; the others can be added to it.
FORMS = ("bullets_exact", "sentences_exact", "paragraphs_exact", "words_between")
EXTRAS = (
    "words_between",
    "include_words",
    "exclude_words",
    "lower_case",
    "ends_with",
    "starts_with",
    "no_commas",
    "title_in_angles",
)
# A title or a bullet comes first in the text; then no other word can. A title is a paragraph.
CLASHES = (
    {"starts_with", "title_in_angles"},
    {"starts_with", "bullets_exact"},
    {"title_in_angles", "paragraphs_exact"},
)
COST = {
    "bullets_exact": 0.06,
    "sentences_exact": 0.12,
    "paragraphs_exact": 0.14,
    "words_between": 0.18,
    "include_words": 0.1,
    "exclude_words": 0.14,
    "lower_case": 0.1,
    "ends_with": 0.12,
    "starts_with": 0.08,
    "no_commas": 0.18,
    "title_in_angles": 0.06,
}
RULES_PER_ITEM = (2, 3, 4)


def rule_names(rng: Random, form: str, count: int) -> list[str] | None:
    """The form and `count` - 1 rules that go with it; None if the draw clashes."""
    names = [form, *rng.sample([name for name in EXTRAS if name != form], count - 1)]
    return None if any(clash <= set(names) for clash in CLASHES) else names


def filled(rng: Random, patterns: Sequence[str], subject: Topic, count: int) -> list[str]:
    slots = asdict(subject)
    return [pattern.format_map(slots) for pattern in rng.sample(patterns, count)]


def outline(rng: Random, form: str, subject: Topic) -> list[list[str]]:
    """The answer as paragraphs of sentences (bullets: one line each)."""
    if form == "bullets_exact":
        return [[point] for point in filled(rng, POINTS, subject, rng.randint(3, 8))]
    if form == "paragraphs_exact":
        blocks = rng.randint(2, 4)
        said = filled(rng, SENTENCES, subject, blocks * 2)
        return [said[2 * n : 2 * n + 2] for n in range(blocks)]
    return [filled(rng, SENTENCES, subject, rng.randint(3, 8))]


def joined(form: str, blocks: list[list[str]]) -> str:
    if form == "bullets_exact":
        return "\n".join(f"- {' '.join(block)}" for block in blocks)
    return "\n\n".join(" ".join(block) for block in blocks)


def titled(subject: Topic, text: str) -> str:
    return f"<<On {subject.doing}>>\n{text}"


def range_around(rng: Random, count: int) -> tuple[int, int]:
    """A word range in steps of five that holds the count with some room."""
    room = rng.choice((5, 10, 15))
    return max(5, (count - room) // 5 * 5), (count + room) // 5 * 5 + 5


def wanted_words(rng: Random, subject: Topic, text: str) -> list[str]:
    """Words of the text that its topic does not force on the writer."""
    slots = f"{subject.tool} {subject.place} {subject.gain} {subject.risk} {subject.start}"
    there = [w for w in dict.fromkeys(slots.split()) if len(w) > 3 and has_word(text, w)]
    return rng.sample(there, min(len(there), rng.randint(1, 3)))


def parameters(rng: Random, names: list[str], subject: Topic, text: str) -> list[Rule]:
    """The rules with parameters that the finished text keeps."""
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    low, high = range_around(rng, words(text))
    found: dict[str, Rule] = {
        "bullets_exact": {"count": len(lines)},
        "sentences_exact": {"count": sum(text.count(mark) for mark in ".!?")},
        "paragraphs_exact": {"count": text.count("\n\n") + 1},
        "words_between": {"low": low, "high": high},
        "include_words": {"words": wanted_words(rng, subject, text)},
        "exclude_words": {"words": rng.sample(subject.tempting, rng.randint(1, 3))},
        "starts_with": {"word": text.split(maxsplit=1)[0]},
    }
    return [{"rule": name, **found.get(name, {})} for name in names]


def model_answer(rng: Random, names: list[str], subject: Topic) -> tuple[str, list[Rule]]:
    """A text that keeps the rules, and the rules with their parameters."""
    form = names[0]
    blocks = outline(rng, form, subject)
    if "starts_with" in names:
        first = blocks[0][0]
        blocks[0][0] = f"{rng.choice(OPENERS)} {first[0].lower()}{first[1:]}"
    ending = rng.choice(ENDINGS)
    if "ends_with" in names:
        blocks[-1].append(ending)
    text = joined(form, blocks)
    if "title_in_angles" in names:
        text = titled(subject, text)
    if "lower_case" in names:
        text, ending = text.lower(), ending.lower()
    rules = parameters(rng, names, subject, text)
    return text, [r | {"phrase": ending} if r["rule"] == "ends_with" else r for r in rules]


def without_word(text: str, unwanted: str) -> str:
    return " ".join(part for part in text.split(" ") if not has_word(part, unwanted))


def attempts(rng: Random, text: str, rule: Rule) -> list[str]:
    """Texts as a careless writer would hand them in: this rule forgotten in each."""
    shorter = text[: text.rstrip(".!?").rfind(".") + 1] or text
    longer = f"{text} There is always more to say."
    word = rule.get("words", ["rest"])[0]
    slips = {
        "sentences_exact": [shorter, longer],
        "words_between": [text[: text.find(".") + 1], f"{text} {text}"],
        "bullets_exact": [text.replace("- ", "* "), text.rsplit("\n", 1)[0]],
        "paragraphs_exact": [text.replace("\n\n", " "), text.replace("\n\n", "\n")],
        "include_words": [without_word(text, word)],
        "exclude_words": [f"{text} Do not forget the {word}."],
        "lower_case": [text.capitalize(), text.title()],
        "ends_with": [longer, shorter],
        "starts_with": [f"{rng.choice(EXCUSES)}\n{text}", text.split(" ", 1)[1].capitalize()],
        "no_commas": [text.replace(" and ", ", and ", 1), f"Well, {text}"],
        "title_in_angles": [text.replace("<<", "").replace(">>", ""), text.replace("<<", "<")],
    }
    return slips[rule["rule"]]


def distractors(rng: Random, text: str, rules: list[Rule]) -> tuple[str, ...]:
    """Up to three answers, each of which breaks a rule."""
    tries = [a for rule in rules for a in attempts(rng, text, rule)]
    wrong = [a for a in dict.fromkeys(tries) if a.strip() and broken(a, rules)]
    return tuple(rng.sample(wrong, min(3, len(wrong))))


def difficulty(rules: list[Rule]) -> float:
    # Not sum(): it rounds differently from Python 3.12 on.
    points = 1.25 * fsum(COST[rule["rule"]] for rule in rules) - 0.1
    by_name = {rule["rule"]: rule for rule in rules}
    points += 0.05 * sum(len(rule.get("words", [0])) - 1 for rule in rules)
    points += 0.02 * sum(max(0, rule.get("count", 0) - 4) for rule in rules)
    if "words_between" in by_name:
        span = by_name["words_between"]
        points += 0.1 * (span["high"] - span["low"] <= 15)
        points += 0.15 * bool({"sentences_exact", "paragraphs_exact"} & by_name.keys())
    return graded(points)


def prompt(rng: Random, subject: Topic, rules: list[Rule]) -> str:
    task = rng.choice(TASKS).replace("{doing}", subject.doing)
    said = [worded(rng, rule) for rule in rng.sample(rules, len(rules))]
    task = task.replace("{reader}", rng.choice(READERS))
    if rng.random() < 0.5:
        return "\n".join([task, *(f"{n}. {rule}" for n, rule in enumerate(said, start=1))])
    return f"{task} {' '.join(said)}"


def write(rng: Random, form: str, count: int) -> Item | None:
    """One task; None if its rules clash or the answer misses one of them."""
    names = rule_names(rng, form, count)
    if names is None:
        return None
    subject = rng.choice(TOPICS)
    text, rules = model_answer(rng, names, subject)
    if broken(text, rules) or any(rule.get("words") == [] for rule in rules):
        return None
    wrong = distractors(rng, text, rules)
    if len(wrong) < 2:
        return None
    asked = prompt(rng, subject, rules)
    return Item(
        input=f"{asked}\n\nReply with the text alone.",
        story=asked,
        target=text,
        difficulty=difficulty(rules),
        tags=(f"rules-{count}", *sorted(names)),
        distractors=wrong,
        extra={"rules": rules},
    )


def authors() -> Sequence[Author]:
    """One author per form and number of rules."""

    def author(form: str, count: int) -> Author:
        return lambda rng: write(rng, form, count)

    return [author(form, count) for form in FORMS for count in RULES_PER_ITEM]
