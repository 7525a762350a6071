"""A conversion reads another gateway's configuration and reports every key of it: taken over,
changed, or left behind with the reason.

`ConversionReport` lists each key that no reader mentioned as unknown, so no key is dropped in
silence. No value of a secret is ever part of the report. Pure.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from harness.domain.errors import InputError

ConfigPath = tuple[str | int, ...]
# How a value of LiteLLM's file names an environment variable.
ENVIRONMENT_MARK: Final = "os.environ/"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ConversionOutcome(StrEnum):
    """What became of a key of the other configuration."""

    TAKEN = "taken"
    CHANGED = "changed"  # taken over, and means something else here
    LEFT = "not taken"


@dataclass(frozen=True, slots=True)
class ConversionNote:
    """Says what became of one key."""

    place: str  # file:line
    key: str  # dotted, as in the other file
    outcome: ConversionOutcome
    text: str  # where it went, or why it did not


@dataclass(frozen=True, slots=True)
class Conversion:
    """Holds a converted configuration, with what became of every key."""

    config: Mapping[str, object]  # of a swapgate.yaml
    notes: tuple[ConversionNote, ...]  # in the order of the other file
    variables: tuple[str, ...]  # environment variables that have to hold secrets

    @property
    def has_routes(self) -> bool:
        return bool(self.config.get("routes"))

    def count(self, outcome: ConversionOutcome) -> int:
        return sum(note.outcome is outcome for note in self.notes)


@dataclass(frozen=True)
class SourceConfig:
    """Holds another gateway's configuration as it was read."""

    values: Mapping[str, object]
    places: Mapping[ConfigPath, str]  # path of a value to `file:line`
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def mapping(self, path: ConfigPath) -> Mapping[str, object]:
        """The mapping at `path`, or an empty one. Raises InputError for another type."""
        value = self._value(path)
        if not isinstance(value, Mapping | None):
            raise InputError("is not a mapping")
        if not all(isinstance(key, str) for key in value or ()):
            raise InputError("has a key that is no text: put it in quotes")
        return value or {}

    def items(self, path: ConfigPath) -> Sequence[object]:
        """The list at `path`, or an empty one. Raises InputError for another type."""
        value = self._value(path)
        if not isinstance(value, list | None):
            raise InputError("is not a list")
        return value or []

    def resolve(self, value: object) -> object:
        """Reads a value that may name an environment variable and is no secret. Raises
        InputError where the variable is not set.
        """
        name = named_variable(value)
        if name and name not in self.environ:
            raise InputError(f"{name} is not set: set it, and convert again")
        return self.environ[name] if name else value

    def _value(self, path: ConfigPath) -> object:
        value: object = self.values
        for part in path:
            if isinstance(value, Mapping):
                value = value.get(part)
            else:
                listed = isinstance(value, list) and isinstance(part, int)
                value = value[part] if listed else None  # type: ignore[index]
        return value


class ConversionReport:
    """Collects what became of each key; a key that no reader mentions is unknown."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._notes: dict[ConfigPath, tuple[ConversionOutcome, str]] = {}

    def take(self, path: ConfigPath, text: str) -> None:
        self._notes[path] = (ConversionOutcome.TAKEN, text)

    def change(self, path: ConfigPath, text: str) -> None:
        self._notes[path] = (ConversionOutcome.CHANGED, text)

    def leave(self, path: ConfigPath, reason: str) -> None:
        """Notes that a key, and all that is in it, is left behind."""
        for known in [known for known in self._notes if known[: len(path)] == path]:
            del self._notes[known]
        self._notes[path] = (ConversionOutcome.LEFT, reason)

    def notes(self) -> tuple[ConversionNote, ...]:
        """Lists the notes in the order of the other file, unknown keys among them."""
        return tuple(self._walk((), self._source.values, "configuration", covered=False))

    def _walk(
        self, path: ConfigPath, value: object, place: str, *, covered: bool
    ) -> Iterator[ConversionNote]:
        place = self._source.places.get(path, place)
        note = self._notes.get(path)
        parts: list[tuple[str | int, object]] = []
        if isinstance(value, Mapping):
            parts = list(value.items())
        elif isinstance(value, list):
            parts = list(enumerate(value))
        if path and not (note or parts or covered):
            note = (ConversionOutcome.LEFT, "Swapgate has no such setting")
        if note:
            yield ConversionNote(place, ".".join(map(str, path)), *note)
        for key, part in parts:
            yield from self._walk((*path, key), part, place, covered=covered or bool(note))


def named_variable(value: object) -> str:
    """The environment variable that a value of the file names; empty for a plain value."""
    if not (isinstance(value, str) and value.startswith(ENVIRONMENT_MARK)):
        return ""
    name = value.removeprefix(ENVIRONMENT_MARK)
    return name if _VARIABLE.fullmatch(name) else ""


def as_number(value: object) -> float:
    """A number that a file may also give as text. Raises InputError for what is none."""
    try:
        number = float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        number = None
    if number is None or isinstance(value, bool) or number != number or abs(number) > 1e15:  # noqa: PLR0124 - NaN
        raise InputError("is not a number")
    return int(number) if number.is_integer() else number


def as_text(value: object) -> str:
    """A text that is not empty. Raises InputError for anything else."""
    if not isinstance(value, str) or not value.strip():
        raise InputError("is not a text")
    return value.strip()
