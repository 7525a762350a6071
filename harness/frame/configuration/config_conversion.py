"""Converts another gateway's configuration, and reports the result for each key. A report never
contains a secret's value.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.redaction import find_keys

ConfigPath = tuple[str | int, ...]
# The formats that `swapproof suite import --from` names.
SUITE_SOURCES: Final = (
    "promptfoo",
    "inspect",
    "langfuse",
    "braintrust",
    "langsmith",
    "openai-evals",
    "deepeval",
    "csv",
    "jsonl",
    "otel",
    "litellm",
    "phoenix",
)
# How a value of LiteLLM's file names an environment variable.
ENVIRONMENT_MARK: Final = "os.environ/"
_VARIABLE: Final = re.compile(f"{ENVIRONMENT_MARK}([A-Za-z_][A-Za-z0-9_]*)")


class ConversionOutcome(StrEnum):
    TAKEN = "taken"
    CHANGED = "changed"  # converted, but with another meaning in Swapproof
    LEFT = "not taken"


@dataclass(frozen=True, slots=True)
class ConversionNote:
    place: str  # file:line
    key: str  # dotted path in the source file
    outcome: ConversionOutcome
    text: str  # the key's place in swapproof.yaml, or why Swapproof did not convert it


@dataclass(frozen=True, slots=True)
class Conversion:
    config: Mapping[str, object]  # the content of a swapproof.yaml
    notes: tuple[ConversionNote, ...]  # in the order of the source file
    variables: tuple[str, ...]  # environment variables that must contain secrets


class NothingTaken(InputError):
    """Raised if a conversion can use no key. notes: the reason for each key."""

    def __init__(self, message: str, notes: Sequence[ConversionNote]) -> None:
        super().__init__(message)
        self.notes = notes


@dataclass(frozen=True)
class SourceConfig:
    """Holds another gateway's configuration, and the outcome of each key."""

    values: Mapping[str, object]
    places: Mapping[ConfigPath, str]  # maps a value's path to `file:line`
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    _notes: dict[ConfigPath, tuple[ConversionOutcome, str]] = field(default_factory=dict)

    def value(self, path: ConfigPath) -> Any:
        """Returns the value at `path`; None if there is no such path."""
        value: Any = self.values
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def variable(self, path: ConfigPath) -> str:
        """Returns the environment variable that a value names; empty for a plain value."""
        match_ = _VARIABLE.fullmatch(f"{self.value(path)}")
        return match_[1] if match_ else ""

    def number(self, path: ConfigPath, default: float | None = None) -> float:
        """Returns a number; the file may write it as a text. Raises InputError."""
        value = self._resolve(path, default)
        try:
            number = float(value if isinstance(value, int | float | str) else "")
        except ValueError:
            number = float("nan")
        if isinstance(value, bool) or not abs(number) <= 1e15:  # refuses NaN too
            raise InputError("is not a number")
        return int(number) if number.is_integer() else number

    def text(self, path: ConfigPath, default: str | None = None) -> str:
        """Returns a text that is not empty. Raises InputError for other values."""
        value = self._resolve(path, default)
        if not isinstance(value, str) or not (value.strip() or default == ""):
            raise InputError("is not a text")
        return value.strip()

    def public(self, path: ConfigPath) -> object:
        """Returns a value. Raises InputError if it may be a secret."""
        text = f"{value}" if (value := self.value(path)) else ""
        if ENVIRONMENT_MARK in text or any(True for _ in find_keys(text)):
            raise InputError("it may be a secret, and Swapproof never copies secrets")
        return value

    def _resolve(self, path: ConfigPath, default: object) -> object:
        if (name := self.variable(path)) and name not in self.environ:
            raise InputError(f"{name} is not set: set it, and convert again")
        value = self.environ[name] if name else self.value(path)
        return default if value is None else value

    def read_each(self, path: ConfigPath, reader: Callable[[ConfigPath], None]) -> None:
        """Reads each entry, and notes the reason for each entry that the reader refuses."""
        if not isinstance(value := self.value(path), Mapping | list | None):
            self.leave(path, "is neither a list nor a mapping")
        for key in _list_keys(value):
            try:
                reader((*path, key))
            except InputError as error:
                self.leave((*path, key), f"{error}")

    def take(
        self,
        path: ConfigPath,
        text: str,
        *,
        changed: bool = False,
    ) -> None:
        outcome = ConversionOutcome.CHANGED if changed else ConversionOutcome.TAKEN
        self._notes[path] = (outcome, text)

    def leave(self, path: ConfigPath, reason: str) -> None:
        for noted in [noted for noted in self._notes if noted[: len(path)] == path]:
            del self._notes[noted]
        self._notes[path] = (ConversionOutcome.LEFT, reason)

    def notes(
        self,
        path: ConfigPath = (),
        place: str = "configuration",
        *,
        covered: bool = False,
    ) -> Iterator[ConversionNote]:
        value = self.value(path)
        note = self._notes.get(path)
        keys = _list_keys(value)
        place = self.places.get(path, place)
        if path and not (note or keys or covered):
            empty = isinstance(value, Mapping | list)
            text = "it is empty" if empty else "Swapproof has no such setting"
            note = (ConversionOutcome.LEFT, text)
        if note:
            yield ConversionNote(place, ".".join(map(str, path)), *note)
        for key in keys:
            yield from self.notes((*path, key), place, covered=covered or bool(note))


def _list_keys(value: object) -> tuple[Any, ...]:
    if isinstance(value, list):
        return tuple(range(len(value)))
    return tuple(value) if isinstance(value, Mapping) else ()
