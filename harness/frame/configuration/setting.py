"""The declaration of a setting: its meaning, range and texts, once, beside its default. Pure.

A record's field gets its declaration by `setting(…)`. The command line, the API, the
dashboard's form, the configuration file and the record's description read it by `settings_of`.
They write a setting of several parts by hand: it is `composite`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from harness.frame.errors import InputError
from harness.frame.formatting import Range, format_bound

Value = TypeVar("Value")
_KEY: Final = "setting"
USUAL_LENGTH: Final = Range(0, 200)
_SHARE: Final = re.compile(r"\s*(?P<number>[0-9]{1,5}(\.[0-9]{1,4})?)\s*(?P<percent>%)?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenForm:
    """The form in which people write a value that is stored in another unit, such as `1%`."""

    key: str  # the file's key
    kind: Any  # the type of the file's value
    default: object  # the written default
    read: Callable[[Any], Any]  # converts the written value; raises InputError
    # The form's name in an option's errors; empty if the option is not written in this form.
    name: str = ""
    allowed: str = ""  # the range, if it is not from one value to another


@dataclass(frozen=True, slots=True, kw_only=True)
class FormEntry:
    """A setting's entry in the dashboard's form."""

    label: str
    column: Literal["left", "right", "wide"] = "left"  # wide: below both columns
    row: int = 100  # the order in its column; equal rows follow the order of declaration
    advanced: bool = True  # whether it stands among the settings that few people change
    words: Mapping[Any, str] | None = None  # a text for each value of an enumeration
    help: str = ""
    placeholder: str = ""  # shown in an empty field
    step: float | None = None  # of the buttons that raise and lower a number
    live: bool = False  # whether the form reacts to each typed letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The declaration of one setting. `settings_of` sets name, kind, optional and default."""

    meaning: str  # sentences for the option's help and the configuration's reference
    caption: str  # the name in a description of the record
    format: Callable[[Any], str] = str  # writes the value in a description of the record
    # Whether each interface writes its form by hand, because the value has several parts.
    composite: bool = False
    range: Range | None = None  # of a number
    length: Range = USUAL_LENGTH  # of a text, in characters
    unset: str = ""  # what applies if an optional value is null
    removal: float | str = 0  # the value or word that makes an optional number null
    flags: str = ""  # of the option, if they do not follow from the name
    metavar: str | None = None  # of the option
    written: WrittenForm | None = None
    form: FormEntry | None = None
    name: str = ""
    kind: Any = object  # the type without None
    optional: bool = False  # whether the value may be None
    default: Any = None

    @property
    def key(self) -> str:
        """The key in the configuration file."""
        return self.written.key if self.written else self.name

    @property
    def written_default(self) -> object:
        """The default as people write it."""
        return self.written.default if self.written else self.default

    def read(self, value: Any) -> Any:
        """Converts a value as people write it, and checks its range. Raises InputError."""
        read = self.written.read(value) if self.written else value
        self.check(read)
        return read

    def check(self, value: Any) -> None:
        """Checks the range of a number; None is valid. Raises InputError."""
        allowed = self.range
        if allowed is None or value is None or allowed.holds(value):
            return
        if self.written is None:
            raise InputError(f"{self.key}: {allowed.text}, not {format_bound(value)}")
        text = self.written.allowed or " to ".join(map(self.format, allowed[:2]))
        raise InputError(f"{self.key}: {text}, not {self.format(value)}")


def setting(default: Value, declared: Declaration) -> Value:
    """Declares a field of a dataclass with its default."""
    metadata = {_KEY: declared}
    declared_field: Any = (
        field(default_factory=lambda: dict(default), hash=False, metadata=metadata)
        if isinstance(default, dict)
        else field(default=default, metadata=metadata)
    )
    return cast("Value", declared_field)


@cache
def settings_of(record: type) -> Mapping[str, Declaration]:
    """Returns the declared settings of a dataclass by field, in the order of declaration."""
    hints = get_type_hints(record)
    return {
        entry.name: _complete(
            entry.metadata[_KEY], entry.name, hints[entry.name], entry.default
        )
        for entry in fields(record)
        if _KEY in entry.metadata
    }


def plain_settings(record: type) -> list[Declaration]:
    """Lists the settings from whose declarations all interfaces follow."""
    return [declared for declared in settings_of(record).values() if not declared.composite]


def _complete(declared: Declaration, name: str, hint: Any, default: Any) -> Declaration:
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return replace(
        declared,
        name=name,
        kind=kinds[0],
        optional=type(None) in kinds,
        default=None if default is MISSING else default,
    )


def check_settings(record: Any) -> None:
    """Checks the ranges of all numbers of a record. Raises InputError for the first fault."""
    kind: type = type(record)
    for name, declared in settings_of(kind).items():
        declared.check(getattr(record, name))


def describe_settings(record: Any) -> dict[str, str]:
    """Describes a record's settings by their captions; "" for an unset one."""
    kind: type = type(record)
    described = {}
    for name, declared in settings_of(kind).items():
        value = getattr(record, name)
        described[declared.caption] = "" if value is None else declared.format(value)
    return described


def format_flag(word: str) -> Callable[[bool], str]:
    """Builds the format of a switch: `word` if it is on, else an empty text."""
    return lambda is_on: word if is_on else ""


def format_unit(unit: str) -> Callable[[float], str]:
    """Builds the format of a number with a unit."""
    return lambda value: f"{value:g} {unit}"


def share_form(key: str) -> WrittenForm:
    """Builds the form of a share in basis points: `1%`, or 100."""
    return WrittenForm(
        key=key,
        kind=int | str,
        default=0,
        read=lambda text: parse_share_bps(text, what=key),
        name="share",
    )


def parse_share_bps(text: str | int, *, what: str) -> int:
    """Parses a share of any size into basis points. what: the setting's name, for the error."""
    found = _SHARE.fullmatch(str(text))
    if found is None:
        raise InputError(f"{what}: {text!r} is not a share: write 1% or basis points (100)")
    number = Decimal(found["number"]) * (100 if found["percent"] else 1)
    if number != int(number):
        raise InputError(f"{what}: {text!r} is not in whole basis points (0.01 %)")
    return int(number)


def change_settings(record: Value, given: Mapping[str, Any]) -> Value:
    """Returns the record with the given settings. `removal` makes an optional number null."""
    kind: type = type(record)
    declared = settings_of(kind)
    removed = {
        name: None
        for name, value in given.items()
        if name in declared and declared[name].optional and value == declared[name].removal
    }
    changed: Value = replace(cast("Any", record), **{**given, **removed})
    return changed
