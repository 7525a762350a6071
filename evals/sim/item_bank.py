"""The item bank: from a rendered prompt to the item that it asks for.

A provider sees text only, so the prompt is all that the simulator goes by. It is looked up
whole first; if a template wrapped the item, by an anchor: a run of at most eight words that is
rare among all items. White space does not matter.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ANCHOR_WORDS = 8
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class BankItem:
    """One question of a suite.

    difficulty: 0 (easy) to 1 (hard). distractors: plausible wrong answers. tool_call:
    `{"name": …, "arguments": {…}}` if the right answer is a call.
    """

    suite: str
    id: str
    input: str
    target: Any
    difficulty: float = 0.5
    distractors: tuple[Any, ...] = ()
    tool_call: Mapping[str, Any] | None = None


def flatten_whitespace(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def windows(words: list[str]) -> list[tuple[str, ...]]:
    """The anchors that an item may have: its middle, first and last words."""
    size = min(ANCHOR_WORDS, len(words))
    last = len(words) - size
    return [tuple(words[at : at + size]) for at in (last // 2, 0, last)]


class ItemBank:
    """All items of all suites. Where two have the same input, the first is kept."""

    def __init__(self, items: Iterable[BankItem]) -> None:
        self._exact: dict[str, BankItem] = {}
        self._suites: dict[str, list[BankItem]] = {}
        for item in items:
            self._exact.setdefault(flatten_whitespace(item.input), item)
            self._suites.setdefault(item.suite, []).append(item)
        self._anchors: dict[tuple[str, ...], list[tuple[str, BankItem]]] = {}
        self._index_anchors()

    def _index_anchors(self) -> None:
        runs = {text: windows(WORD.findall(text)) for text in self._exact}
        seen = Counter(run for options in runs.values() for run in set(options))
        for text, options in runs.items():
            rarest = min(options, key=lambda run: seen[run])
            if rarest:
                self._anchors.setdefault(rarest, []).append((text, self._exact[text]))
        self._sizes = sorted({len(run) for run in self._anchors})

    @property
    def suites(self) -> Mapping[str, list[BankItem]]:
        return self._suites

    def find(self, prompt: str) -> BankItem | None:
        """The item that the prompt asks, None if it holds none.

        Of several (worked examples before the question) the one that ends last, and of those
        the longest.
        """
        text = flatten_whitespace(prompt)
        return self._exact.get(text) or self._contained(text)

    def _contained(self, prompt: str) -> BankItem | None:
        words = WORD.findall(prompt)
        best, found = (-1, 0), None
        for size in self._sizes:
            for at in range(len(words) - size + 1):
                for text, item in self._anchors.get(tuple(words[at : at + size]), ()):
                    start = prompt.rfind(text)
                    place = (start + len(text), len(text))
                    if start >= 0 and place > best:
                        best, found = place, item
        return found
