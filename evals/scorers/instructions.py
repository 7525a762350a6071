"""The scorer `instructions` checks an answer against the writing rules in `metadata.rules`.

Each rule is `{"rule": name, …parameters}`; docs/reference/suites.md has the table.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from evals.scorers.interface import (
    EMPTY_ANSWER,
    Options,
    Scorer,
    ScoreResult,
    score_result,
    written,
)
from evals.scorers.typography import fold_case, plain_typography
from evals.scorers.unwrap import (
    first_word,
    inside_fence,
    paragraphs,
    sentences,
    word_count,
    words,
)
from evals.suites.items import Item
from harness.frame.canonical_text import canonical, canonical_value
from harness.frame.errors import InputError

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WritingRule:
    """A rule. params: the type of each parameter; a `list` contains texts."""

    holds: Callable[[str, Params], bool]
    params: Mapping[str, type]


def bullets(text: str) -> int:
    return sum(line.startswith("- ") for line in text.splitlines())


RULES: Final[Mapping[str, WritingRule]] = {
    "sentences_exact": WritingRule(lambda t, p: sentences(t) == p["count"], {"count": int}),
    "words_between": WritingRule(
        lambda t, p: p["low"] <= words(t) <= p["high"], {"low": int, "high": int}
    ),
    "bullets_exact": WritingRule(lambda t, p: bullets(t) == p["count"], {"count": int}),
    "paragraphs_exact": WritingRule(
        lambda t, p: len(paragraphs(t)) == p["count"], {"count": int}
    ),
    "include_words": WritingRule(
        lambda t, p: all(word_count(t, word) for word in p["words"]), {"words": list}
    ),
    "exclude_words": WritingRule(
        lambda t, p: not any(word_count(t, word) for word in p["words"]), {"words": list}
    ),
    "lower_case": WritingRule(lambda t, _: t == t.lower(), {}),
    "ends_with": WritingRule(lambda t, p: t.strip().endswith(p["phrase"]), {"phrase": str}),
    "starts_with": WritingRule(lambda t, p: first_word(t) == p["word"], {"word": str}),
    "no_commas": WritingRule(lambda t, _: "," not in t, {}),
    "title_in_angles": WritingRule(lambda t, _: re.search(r"<<[^<>\n]+>>", t) is not None, {}),
}


# Limits of length: the lenient score ignores them if an item has other rules.
LENGTHS: Final = frozenset({"words_between", "sentences_exact"})
BULLET: Final = re.compile(r"^[^\S\n]*(?:[-*+•–]|\d{1,3}[.)])[^\S\n]", re.MULTILINE)
AROUND: Final = " \t\n*_`#\"'“”‘’.!;:"  # markup, quotes and marks around a phrase


def ends_about(text: str, params: Params) -> bool:
    phrase = plain_typography(str(params["phrase"])).strip(AROUND).casefold()
    plain = plain_typography(text).strip(AROUND).casefold()
    return bool(phrase) and plain.endswith(phrase)


def includes_about(text: str, params: Params) -> bool:
    plain = plain_typography(text)
    return all(word_count(plain, plain_typography(word)) for word in params["words"])


# Lenient forms of rules: the answer follows the instruction, but not literally.
VARIANTS: Final[Mapping[str, Callable[[str, Params], bool]]] = {
    "bullets_exact": lambda t, p: len(BULLET.findall(t)) == p["count"],
    "ends_with": ends_about,
    "include_words": includes_about,
    "starts_with": lambda t, p: fold_case(first_word(t)) == fold_case(p["word"]),
    "title_in_angles": lambda t, _: (
        re.search(r"(?:«|&lt;&lt;)[^<>\n]+(?:»|&gt;&gt;)", t) is not None
    ),
}


def share(text: str, rules: Sequence[Params]) -> float:
    return sum(RULES[rule["rule"]].holds(text, rule) for rule in rules) / len(rules)


def loose_share(text: str, rules: Sequence[Params]) -> float:
    names = [(str(rule["rule"]), rule) for rule in rules]
    kept = sum(
        RULES[name].holds(text, rule) or (name in VARIANTS and VARIANTS[name](text, rule))
        for name, rule in names
    )
    return kept / len(rules)


def relaxed(answer: str) -> Iterator[tuple[str, str]]:
    """Yields (rule, text) without the fence, the opening line, or the closing paragraph."""
    text = answer.strip()
    fenced = inside_fence(text)
    if fenced is not None:
        text = fenced
        yield "code_fence", text
    lines = text.splitlines()
    if len(lines) > 1:
        # An opening such as "Sure, here it is:" ends in a colon or stands alone.
        opening = lines[0].rstrip().endswith(":") or not lines[1].strip()
        without = "\n".join(lines[1:]).strip()
        if opening and without:
            yield "leading_prose", without
    blocks = re.split(r"\n[^\S\n]*\n", text)
    if len(blocks) > 1:
        yield "trailing_prose", "\n\n".join(blocks[:-1]).strip()
    if len(blocks) > 2:
        yield "leading_and_trailing_prose", "\n\n".join(blocks[1:-1]).strip()


def readings(answer: str, rules: Sequence[Params]) -> Iterator[tuple[str, float]]:
    """Yields (forgiven form rules, share of the rules that hold), the strictest first."""
    unlimited = [rule for rule in rules if rule["rule"] not in LENGTHS]
    texts = (("", answer), *relaxed(answer))
    for name, text in texts:
        yield name, share(text, rules)
    for form, left in (("literal_form", rules), ("length", unlimited)):
        for name, text in texts if left else ():
            yield f"{name}+{form}" if name else form, loose_share(text, left)


def instructions(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores 1 if all rules hold, else 0; with `graded` the share of the rules that hold."""
    if not answer.strip():
        return EMPTY_ANSWER
    answer = canonical(answer)
    rules = canonical_value(item.metadata["rules"])
    found = [
        (rule, kept if options["graded"] else float(kept == 1))
        for rule, kept in readings(answer, rules)
    ]
    # `max` takes the first of equal scores, which is the strictest.
    rule, best = max(found, key=lambda pair: pair[1])
    return score_result(found[0][1], best, rule)


def check(item: Item, _options: Options) -> str | None:
    rules = item.metadata.get("rules")
    if not isinstance(rules, list) or not rules:
        raise InputError(
            f"item {item.id!r}: scorer 'instructions' needs metadata.rules, a list"
        )
    for rule in rules:
        name = str(rule.get("rule")) if isinstance(rule, dict) else "None"
        if name not in RULES:
            known = ", ".join(RULES)
            raise InputError(f"item {item.id!r}: unknown rule {name!r}; rules: {known}")
        for key, kind in RULES[name].params.items():
            value = rule.get(key)
            texts = not isinstance(value, list) or all(
                isinstance(element, str) for element in value
            )
            if not isinstance(value, kind) or isinstance(value, bool) or not texts:
                raise InputError(
                    f"item {item.id!r}: rule {name!r}: {key} must be a {kind.__name__}"
                )
    return None


INSTRUCTIONS = Scorer(
    "instructions",
    instructions,
    {"graded": False},
    check=check,
    target_score=lambda item, options: instructions(written(item.target), item, options),
)
