"""Finds a text that an arm repeats as the answer to unlike questions (statistics.md §2.5).

A gateway may send an error as a model's text, so that most answers of one arm are byte-equal.
This module has only hashes: no text of a request or an answer.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from harness.gate.online.reading.scored_exposures import AnswerFault, LedgerExposure

# A shorter text may be a label, which many questions share.
LEAST_CHARACTERS: Final = 40
# A text counts as repeated after it answered this many unlike questions.
LEAST_QUESTIONS: Final = 3
# The canary needs this many answers with a text before its repeated text counts.
LEAST_ANSWERS: Final = 10
# Bounds of the memory of one rollout.
MOST_WAITING: Final = 20_000
MOST_TEXTS: Final = 4_096
MOST_QUESTIONS: Final = 256
_REPEATED: Final = AnswerFault.REPEATED.value


class RepeatedTexts:
    """Marks the exposures of each block if their answer is their arm's most repeated text.

    The text comes from earlier blocks, so that a block does not decide its own marks. The
    canary learns from at most as many answers as the incumbent. If the arms are equal, the
    canary then never knows its repeated text better, so a mark is not more probable in it.

    The canary's text has at least LEAST_CHARACTERS characters, the incumbent's has any length.
    So a candidate with longer words for an incumbent's labels is not a suspect.
    """

    def __init__(self) -> None:
        self._canary = _ArmTexts(LEAST_CHARACTERS)
        self._control = _ArmTexts(1)

    def mark(self, exposures: Sequence[LedgerExposure]) -> None:
        """Marks a block's exposures by earlier blocks, then learns from them."""
        if self._canary.learned >= LEAST_ANSWERS:
            tops = {True: self._canary.top, False: self._control.top}
            for exposure in exposures:
                if exposure.text and exposure.text == tops[exposure.canary]:
                    exposure.bad |= _REPEATED
        self._canary.waiting.extend(_iter_answers(exposures, canary=True))
        self._control.waiting.extend(_iter_answers(exposures, canary=False))
        self._control.learn(len(self._control.waiting))
        max_new = self._control.learned - self._canary.learned
        self._canary.learn(min(max_new, len(self._canary.waiting)))


Answer = tuple[int, int, int]  # text, text_length, question


def _iter_answers(exposures: Iterable[LedgerExposure], *, canary: bool) -> Iterable[Answer]:
    return (
        (exposure.text, exposure.text_length, exposure.question)
        for exposure in exposures
        if exposure.text and exposure.canary is canary
    )


class _ArmTexts:
    """The texts of one arm, with the unlike questions of every text.

    top: the text that answered most questions; 0 below LEAST_QUESTIONS questions.
    waiting: the answers before learning, oldest first. learned: the number of answers after it.
    """

    def __init__(self, least_characters: int) -> None:
        self.top = self.learned = 0
        self.waiting: deque[Answer] = deque(maxlen=MOST_WAITING)
        self._least_characters = least_characters
        self._questions: dict[int, set[int]] = {}
        self._counts: dict[int, int] = {}

    def learn(self, count: int) -> None:
        """Learns from the `count` oldest answers that wait."""
        self.learned += count
        for _ in range(count):
            text, length, question = self.waiting.popleft()
            if length < self._least_characters or not question:
                continue
            questions = self._questions.setdefault(text, set())
            if question not in questions:
                self._counts[text] = self._counts.get(text, 0) + 1
                if len(questions) < MOST_QUESTIONS:
                    questions.add(question)
        if len(self._counts) > MOST_TEXTS:
            self._forget_rare()
        # Between equally frequent texts, the hash decides, which favours no arm.
        most_frequent = max(
            self._counts,
            key=lambda text: (self._counts[text], text),
            default=0,
        )
        self.top = most_frequent if self._counts.get(most_frequent, 0) >= LEAST_QUESTIONS else 0

    def _forget_rare(self) -> None:
        frequent = sorted(self._counts, key=self._counts.__getitem__)[MOST_TEXTS // 2 :]
        self._counts = {text: self._counts[text] for text in frequent}
        self._questions = {text: self._questions[text] for text in frequent}
