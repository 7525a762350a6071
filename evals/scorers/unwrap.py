"""Removes fences, markup and quotes from answers, and counts words, sentences and paragraphs.

Each removed layer has the name of the form rule that it breaks. All functions take linear time.
"""

import re
from collections.abc import Iterator

FENCE = "```"
# Scorers use possessive patterns, because a broken model may write thousands of spaces.
LANGUAGE = re.compile(r"[^\S\n]*+[\w+-]*+[^\S\n]*+(?:\n|(?=[{\[\"]))")
MARKUP = re.compile(r"^(?:[*_#`>\s]|-\s)++|(?<![*_`\s])[*_`\s]++$")
QUOTES = "\"'“”‘’«»"


def inside_fence(text: str) -> str | None:
    """Returns the content of the only code fence; None without one, or with several."""
    parts = text.split(FENCE)
    if (len(parts) - 1) // 2 != 1:
        return None
    named = LANGUAGE.match(parts[1])
    return parts[1][named.end() if named else 0 :].strip()


def unwrap_layers(answer: str) -> Iterator[tuple[str, str]]:
    """Yields (rule, text) after each removed layer, the outermost layer first."""
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
    return [line.strip() for line in text.splitlines() if line.strip()]


# Closing quotes, brackets and markup may follow the mark: "Go on." He said (so I hear.)
# Possessive, and only from a run's first mark, so that a row of dots takes linear time.
SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’»)\]*_]*+(?=\s|$)")


def sentences(text: str) -> int:
    """Counts runs of . ! ? before white space, the end, or a closing quote or bracket.

    Text after the last run does not count.
    """
    return len(SENTENCE_END.findall(text))


def words(text: str) -> int:
    return sum(1 for part in text.split() if any(char.isalnum() for char in part))


def word_count(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def paragraphs(text: str) -> list[str]:
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            blocks[-1].append(line)
        else:
            blocks.append([])
    return ["\n".join(block).strip() for block in blocks if block]


def first_word(text: str) -> str:
    found = re.search(r"\w+", text)
    return found.group() if found else ""
