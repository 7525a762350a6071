"""Taking off what models wrap around an answer; a layer has the name of the rule it breaks."""

import re
from collections.abc import Iterator

FENCE = re.compile(r"```[^\S\n]*[\w+-]*[^\S\n]*(?:\n|(?=\S))(.*?)\n?[^\S\n]*```", re.DOTALL)
MARKUP = re.compile(r"^(?:[*_#`>\s]|-\s)+|[*_`\s]+$")
QUOTES = "\"'“”‘’«»"


def inside_fence(text: str) -> str | None:
    """What stands in the only code fence of `text`; None without one, or with several."""
    fences = FENCE.findall(text)
    return fences[0] if len(fences) == 1 else None


def peelings(answer: str) -> Iterator[tuple[str, str]]:
    """(rule, text): the answer with one layer after another taken off, outermost first."""
    text = answer.strip()
    fenced = inside_fence(text)
    if fenced is not None:
        text = fenced.strip()
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


def lines_of(text: str) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]
