"""The declaration of a setting: its meaning, range and texts, once, beside its default. Pure.

A record's field gets its declaration by `setting(…)`. The command line, the API, the
dashboard's form, the configuration file and the record's description read it by `settings_of`.
A setting of several parts is `composite`: each interface writes it by hand. A number that only
the configuration file sets is declared by `number(…)`. `setting_values` reads and checks
values.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from types import UnionType
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

Value = TypeVar("Value")
_KEY: Final = "setting"


class Range(NamedTuple):
    """Bounds a number on both sides; the bounds themselves are allowed, except as `above`."""

    low: float
    high: float
    zero: bool = False  # whether 0, which turns the setting off, is allowed as well
    above: bool = False  # whether the lower bound itself is refused

    def holds(self, value: float) -> bool:
        if self.above and value == self.low:
            return False
        return self.low <= value <= self.high or (self.zero and value == 0)

    @property
    def text(self) -> str:
        if self.above:
            return f"above {format_bound(self.low)}, at most {format_bound(self.high)}"
        words = f"{format_bound(self.low)} to {format_bound(self.high)}"
        return f"0, or {words}" if self.zero else words


def format_bound(value: float) -> str:
    """Formats a number in full, such as 0.000001 or 31,622,400, unless it is too
    long to read.
    """
    if value and not 1e-9 <= abs(value) < 1e16:
        return f"{value:g}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.9f}".rstrip("0")


# Ranges that several records share.
# Shorter than any useful duration, but not 0, which could mean "no limit".
SHORTEST_S: Final = 0.001
HOUR_S: Final = 3_600.0
DAY_S: Final = 86_400.0
YEAR_S: Final = 366 * DAY_S
WAIT_S: Final = Range(SHORTEST_S, DAY_S)
KEPT_DAYS: Final = Range(0.001, 36_600)
COUNT: Final = Range(1, 1_000_000)
TOKENS: Final = Range(1, 1e15)  # of many requests
ANSWER_TOKENS: Final = Range(1, 1_000_000_000)  # of one request or answer
DOLLARS: Final = Range(0, 1_000_000_000)
PORT: Final = Range(0, 65_535)
# Shares such as a margin or a saving. No suite has enough items for values closer to 0 or 1.
SHARE_RANGE: Final = Range(0.0001, 0.999)

# Units by the ending of a setting's name. The longest ending that fits counts.
_UNITS: Final[Mapping[str, str]] = {
    "_s": "seconds",
    "_hours": "hours",
    "_days": "days",
    "_bps": "basis points",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_usd": "USD",
    "_usd_per_mtok": "USD per million tokens",
    "_per_min": "a minute",
}
USUAL_LENGTH: Final = Range(0, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenForm:
    """The form, such as `1%`, in which people write a value that Swapproof stores in another
    unit.
    """

    key: str  # the file's key
    kind: Any  # the type of the file's value
    default: object  # the written default
    read: Callable[[Any], Any]  # converts the written value; raises InputError
    # The form's name in an option's errors; empty if the option is not written in this form.
    name: str = ""
    allowed: str = ""  # the range in words, if two bounds do not describe it


@dataclass(frozen=True, slots=True, kw_only=True)
class FormEntry:
    """A setting's entry in the dashboard's form."""

    label: str
    column: Literal["left", "right", "wide"] = "left"  # wide: below both columns
    row: int = 100  # the order in its column; equal rows follow the order of declaration
    advanced: bool = True  # whether the form shows it with the settings that few people change
    words: Mapping[Any, str] | None = None  # a text for each value of an enumeration
    help: str = ""
    placeholder: str = ""  # shown in an empty field
    step: float | None = None  # of the buttons that raise and lower a number
    live: bool = False  # whether the form reacts to each typed letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The declaration of one setting. `settings_of` sets name, kind, optional and default."""

    meaning: str  # sentences for the option's help and the configuration's reference
    caption: str = ""  # the name in a description of the record
    format: Callable[[Any], str] = str  # writes the value in a description of the record
    # Whether each interface writes its form by hand, because the value has several parts.
    composite: bool = False
    range: Range | None = None  # of a number
    own_unit: str = ""  # of a number whose name does not end in its unit
    length: Range = USUAL_LENGTH  # of a text, in characters
    unset: str = ""  # the rule that applies if an optional value is null
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

    @property
    def unit(self) -> str:
        """The unit of a number; empty for none."""
        ends = [end for end in _UNITS if self.name.endswith(end)]
        return self.own_unit or (_UNITS[max(ends, key=len)] if ends else "")

    @property
    def description(self) -> str:
        """The meaning, and the rule that applies if the value is null."""
        return f"{self.meaning} If null: {self.unset}." if self.unset else self.meaning

    def holds(self, value: Any) -> bool:
        """Tells whether a value lies in its range; None is always valid."""
        return self.range is None or value is None or self.range.holds(value)


def required(meaning: str, **more: Any) -> Mapping[str, Declaration]:
    """Declares a setting without a default: `field(metadata=required(…))`.

    Args:
        more: the fields of Declaration.
    """
    return {_KEY: Declaration(meaning=meaning, **more)}


def setting(default: Value, declared: Declaration) -> Value:
    """Declares a field of a dataclass with its default."""
    metadata = {_KEY: declared}
    declared_field: Any = (
        field(default_factory=lambda: dict(default), hash=False, metadata=metadata)
        if isinstance(default, dict)
        else field(default=default, metadata=metadata)
    )
    return cast("Value", declared_field)


def number(default: Value, meaning: str, allowed: Range, *, unit: str = "") -> Value:
    """Declares a number that only the configuration file sets.

    Args:
        unit: for a name that does not end in its unit, such as `_s`.
    """
    return setting(default, Declaration(meaning=meaning, range=allowed, own_unit=unit))


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
    """Lists the settings that all interfaces build from their declarations."""
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


def format_flag(word: str) -> Callable[[bool], str]:
    """Builds the format of a switch: `word` if it is on, else an empty text."""
    return lambda is_on: word if is_on else ""


def format_unit(unit: str) -> Callable[[float], str]:
    """Builds the format of a number with a unit."""
    return lambda value: f"{value:g} {unit}"
