"""Redaction replaces what its rules find in a JSON value, before anything of it is kept (F9).
Pure.

A rule finds places in a text; each becomes a placeholder. What is alike within one value gets
the same number, `[EMAIL_1]`, so that who is meant can still be told. Texts that are JSON, such
as a tool call's arguments, are looked into; so are keys and numbers.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from harness.domain.bounded_regex import BoundedPattern
from harness.domain.content_hash import digest
from harness.domain.errors import InputError
from harness.domain.privacy.pii import FINDERS_VERSION, PII_FINDERS, Span

# Deeper than this, JSON within JSON is read as text.
MAX_JSON_DEPTH: Final = 8
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_ALWAYS: Final = "key"


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """Defines one of the user's redaction rules.

    Raises InputError for an invalid name or pattern, or a pattern that matches the empty text.
    """

    name: str
    pattern: str  # as Python's `re` takes it
    replacement: str = ""  # `[NAME]` where it is empty

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in PII_FINDERS:
            raise InputError(
                f"redaction rule {self.name!r}: a name is lower case, digits and _, and not "
                f"{', '.join(PII_FINDERS)}"
            )
        try:
            empty = BoundedPattern(self.pattern).matches_whole("")
        except InputError as error:
            raise InputError(f"redaction rule {self.name!r}: {error}") from None
        if empty:
            raise InputError(f"redaction rule {self.name!r}: it matches the empty text")


@dataclass(frozen=True, slots=True)
class RedactionResult:
    """Holds a value after redaction, and what was found in it."""

    value: Any
    counts: Mapping[str, int]  # how many places each rule found


@dataclass(frozen=True)
class Redactor:
    """Applies the user's redaction rules, then the built-in ones but for those in `off`. Raises
    InputError for an `off` that it cannot go without, and for two rules of one name.

    Keys are always taken out.
    """

    rules: tuple[RedactionRule, ...] = ()
    off: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.off:
            if name not in PII_FINDERS or name == _ALWAYS:
                others = ", ".join(finder for finder in PII_FINDERS if finder != _ALWAYS)
                raise InputError(f"redaction cannot go without {name!r}; only without {others}")
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"there are two redaction rules {name!r}")

    @cached_property
    def digest(self) -> str:
        """Hashes the rules, `off` and the version of the built-in rules."""
        own = [[rule.name, rule.pattern, rule.replacement] for rule in self.rules]
        return digest([FINDERS_VERSION, own, sorted(set(self.off))])

    def redact(self, value: object) -> RedactionResult:
        """Redacts a JSON value into a new one. value: as `json.loads` gives it.

        Raises PatternTooSlow: nothing may be kept of a text that a rule did not get through.
        """
        pass_ = _Pass(self._steps)
        return RedactionResult(pass_.value(value, 0), dict(pass_.counts))

    @cached_property
    def _steps(self) -> "Sequence[_Step]":
        own = [
            _Step(rule.name, BoundedPattern(rule.pattern).spans, rule.replacement)
            for rule in self.rules
        ]
        ours = [_Step(name, find) for name, find in PII_FINDERS.items() if name not in self.off]
        return (*own, *ours)


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    find: Callable[[str], Iterable[Span]]
    replacement: str = ""


@dataclass(slots=True)
class _Pass:
    """Over one value."""

    steps: Sequence[_Step]
    counts: Counter[str] = field(default_factory=Counter)
    known: dict[tuple[str, str], int] = field(default_factory=dict)

    def value(self, value: object, depth: int) -> object:
        match value:
            case str():
                return self._text(value, depth)
            case dict():
                return {
                    self._plain(str(key)): self.value(inner, depth)
                    for key, inner in value.items()
                }
            case list() | tuple():
                return [self.value(inner, depth) for inner in value]
            case bool() | float() | None:
                return value
            case int():
                told = str(value)
                found = self._plain(told)
                return value if found == told else found
            case _:
                raise InputError(f"{type(value).__name__} is no JSON")

    def _text(self, text: str, depth: int) -> str:
        if depth < MAX_JSON_DEPTH and text.lstrip()[:1] in ("{", "[", '"'):
            try:
                inner = json.loads(text)
            except (ValueError, RecursionError):
                pass
            else:
                if isinstance(inner, dict | list | str):
                    found = self.value(inner, depth + 1)
                    # As it was written, where nothing is found: form is part of the answer.
                    return text if found == inner else json.dumps(found, ensure_ascii=False)
        return self._plain(text)

    def _plain(self, text: str) -> str:
        # Escapes of JSON that is not whole would hide what is in it.
        if "\\u" in text:
            text = _ESCAPE.sub(lambda match_: chr(int(match_[1], 16)), text)
        for step in self.steps:
            text = self._replaced(text, step)
        return text

    def _replaced(self, text: str, step: _Step) -> str:
        pieces: list[str] = []
        place = 0
        for start, end in step.find(text):
            if start < place:
                continue
            pieces += [text[place:start], self._placeholder(step, text[start:end])]
            place = end
        return text if not pieces else "".join((*pieces, text[place:]))

    def _placeholder(self, step: _Step, found: str) -> str:
        self.counts[step.name] += 1
        if step.replacement:
            return step.replacement
        of_kind = sum(name == step.name for name, _ in self.known)
        number = self.known.setdefault((step.name, found), of_kind + 1)
        return f"[{step.name.upper()}_{number}]"
