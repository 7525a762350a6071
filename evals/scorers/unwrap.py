"""An answer is unwrapped from fences, markup and quotes; each layer names the rule it
breaks.
"""

import re
from collections.abc import Iterator

FENCE = "```"
# Possessive, here and in the other scorers: a model gone astray writes thousands of blanks.
LANGUAGE = re.compile(r"[^\S\n]*+[\w+-]*+[^\S\n]*+(?:\n|(?=[{\[\"]))")
MARKUP = re.compile(r"^(?:[*_#`>\s]|-\s)++|(?<![*_`\s])[*_`\s]++$")
QUOTES = "\"'“”‘’«»"


def inside_fence(text: str) -> str | None:
    """What stands in the only code fence of `text`; None without one, or with several."""
    parts = text.split(FENCE)
    if (len(parts) - 1) // 2 != 1:
        return None
    named = LANGUAGE.match(parts[1])
    return parts[1][named.end() if named else 0 :].strip()


def unwrap_layers(answer: str) -> Iterator[tuple[str, str]]:
    """(rule, text): the answer with one layer after another taken off, outermost first."""
    text = answer.strip()
    fenced = inside_fence(text)
    if fenced is not None:
        text = fenced
        yield "code_fence", text
    for rule, peeled in (
        ("markup", MARKUP.sub("", text)),
        ("quotes", MARKUP.sub("", text).strip(QUOTES).strip()),
        (
            "trailing_punctuation",
            MARKUP.sub("", text).strip(QUOTES).rstrip(".!;:, ").strip(QUOTES),
        ),
    ):
        if peeled != text:
            text = peeled
            yield rule, text


def non_blank_lines(text: str) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]
