"""The rules of the instruction-following suite: how to check them, how they are worded.

A rule is `{"rule": name, ...params}`:

    sentences_exact {count}       exactly `count` sentences
    words_between   {low, high}   low <= words <= high
    bullets_exact   {count}       exactly `count` lines that start with "- "
    paragraphs_exact {count}      exactly `count` blocks separated by blank lines
    include_words   {words}       each as a whole word, in any case
    exclude_words   {words}       none as a whole word, in any case
    lower_case      {}            no upper-case letter
    ends_with       {phrase}      the stripped text ends with the phrase, same case
    starts_with     {word}        the first word is this one, same case
    no_commas       {}            no ","
    title_in_angles {}            contains <<...>> with something between

A sentence is a maximal run that ends in one of . ! ? followed by white space or the end of the
text, closing quotes, brackets and markup between them left aside; text after the last one is
not a sentence. A word is a run without white space that has a
letter or a digit. Abbreviations do not occur in the data.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Any

Rule = dict[str, Any]


def sentences(text: str) -> int:
    return len(re.findall(r"[.!?]+[\"'”’»)\]*_]*(?=\s|$)", text))


def words(text: str) -> int:
    return sum(1 for part in text.split() if any(c.isalnum() for c in part))


def has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def paragraphs(text: str) -> int:
    return len([block for block in re.split(r"\n\s*\n", text.strip()) if block.strip()])


def first_word(text: str) -> str:
    found = re.match(r"\W*(\w+)", text)
    return found.group(1) if found else ""


CHECKS: dict[str, Callable[[str, Rule], bool]] = {
    "sentences_exact": lambda t, r: sentences(t) == r["count"],
    "words_between": lambda t, r: r["low"] <= words(t) <= r["high"],
    "bullets_exact": lambda t, r: (
        sum(line.startswith("- ") for line in t.splitlines()) == r["count"]
    ),
    "paragraphs_exact": lambda t, r: paragraphs(t) == r["count"],
    "include_words": lambda t, r: all(has_word(t, word) for word in r["words"]),
    "exclude_words": lambda t, r: not any(has_word(t, word) for word in r["words"]),
    "lower_case": lambda t, _: t == t.lower(),
    "ends_with": lambda t, r: t.strip().endswith(r["phrase"]),
    "starts_with": lambda t, r: first_word(t) == r["word"],
    "no_commas": lambda t, _: "," not in t,
    "title_in_angles": lambda t, _: re.search(r"<<[^<>\n]+>>", t) is not None,
}

WORDINGS: dict[str, tuple[str, ...]] = {
    "sentences_exact": (
        "Write exactly {count} sentences.",
        "The text has {count} sentences, no more and no fewer.",
        "Use {count} sentences in all.",
    ),
    "words_between": (
        "Use between {low} and {high} words.",
        "Stay within {low} to {high} words.",
        "At least {low} words, at most {high}.",
    ),
    "bullets_exact": (
        'Answer with exactly {count} bullet points, each on a line that starts with "- ".',
        'Give {count} lines that begin with "- ", one point on each.',
    ),
    "paragraphs_exact": (
        "Write {count} paragraphs with a blank line between them.",
        "Split the text into exactly {count} paragraphs, separated by blank lines.",
    ),
    "include_words": (
        "These words must occur: {words}.",
        "Work in the following: {words}.",
        "Mention {words}, spelled just so.",
    ),
    "exclude_words": (
        "Do not use the words {words}.",
        "Avoid {words} altogether.",
        "The following must not occur: {words}.",
    ),
    "lower_case": (
        "Write everything in lower case, without a single capital.",
        "No capital letters anywhere.",
    ),
    "ends_with": (
        'End with the exact words "{phrase}"',
        'The last thing in your answer must be: "{phrase}"',
    ),
    "starts_with": (
        'Begin with the word "{word}".',
        'The first word has to be "{word}".',
    ),
    "no_commas": ("Do not use any commas.", "Commas are not allowed."),
    "title_in_angles": (
        "Give it a title in double angle brackets, such as <<Title>>.",
        "Put a title between << and >> at the top.",
    ),
}


def broken(text: str, rules: list[Rule]) -> list[str]:
    """The names of the rules that the text breaks."""
    return [rule["rule"] for rule in rules if not CHECKS[rule["rule"]](text, rule)]


def worded(rng: Random, rule: Rule) -> str:
    """The rule as an instruction to a writer."""
    params = {key: value for key, value in rule.items() if key != "rule"}
    if "words" in params:
        params["words"] = ", ".join(f'"{word}"' for word in params["words"])
    text = rng.choice(WORDINGS[rule["rule"]])
    for key, value in params.items():
        text = text.replace(f"{{{key}}}", str(value))
    return text
