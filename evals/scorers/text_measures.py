"""Words, sentences, paragraphs and bullets of a text are counted in linear time."""

import re

# Closing quotes, brackets and markup may follow the mark: "Go on." He said (so I hear.)
# Possessive, and begun at a run's first mark only: a row of dots takes linear time.
SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’»)\]*_]*+(?=\s|$)")


def sentences(text: str) -> int:
    """Runs of . ! ? before white space or the end, or before what closes a quotation.

    What follows the last one is none.
    """
    return len(SENTENCE_END.findall(text))


def words(text: str) -> int:
    """Runs without white space that have a letter or a digit."""
    return sum(1 for part in text.split() if any(char.isalnum() for char in part))


def word_count(text: str, word: str) -> int:
    """Counts how often a word stands in a text as a whole word, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def paragraphs(text: str) -> list[str]:
    """Blocks between blank lines, stripped."""
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
