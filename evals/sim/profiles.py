"""A profile defines a simulated model: skill by suite, habits, latency, price and script.

The classes check their fields, because profiles come from files and requests. `simulated_model`
turns a profile into answers.
"""

import math
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import field, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from harness.frame.configuration.source_locations import parse_file
from harness.frame.errors import InputError
from harness.frame.plain_data import digest
from harness.frame.suggestions import describe_fault
from harness.providers.target import Price

DEFAULT_PROFILES = Path(__file__).with_name("profiles.yaml")
T = TypeVar("T")
STRICT_FIELDS = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
Word = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]*$")]


@dataclass(frozen=True, slots=True, config=STRICT_FIELDS)
class Habits:
    """Shares of the answers. A `response_format` or a strict system message ends habits."""

    json_fences: Share = 0.0  # JSON in a code fence
    trailing_prose: Share = 0.0  # a sentence after the JSON
    verbose: Share = 0.0  # a sentence before an answer that is not JSON


@dataclass(frozen=True, slots=True, config=STRICT_FIELDS)
class Latency:
    """Time to the first token: log-normal, with sigma of its log. Then a constant rate."""

    first_token_median_ms: AtLeastZero = 300.0
    sigma: AtLeastZero = 0.35
    tokens_per_s: Annotated[float, Field(gt=0)] = 80.0

    def first_token_s(self, z: float) -> float:
        """Returns the seconds to the first token.

        Args:
            z: a standard normal number.
        """
        return self.first_token_median_ms / 1000 * math.exp(self.sigma * z)

    def generation_s(self, tokens: int) -> float:
        """Returns the seconds for all tokens after the first."""
        return tokens / self.tokens_per_s


@dataclass(frozen=True, slots=True, config=STRICT_FIELDS)
class ScriptLine:
    """A fixed answer at a point of a conversation; the first line that fits counts.

    Named groups of the patterns fill `$name` in the answer.
    """

    # Patterns for the newest message and for earlier messages; empty for any.
    newest: re.Pattern[str] = re.compile("")
    earlier: re.Pattern[str] = re.compile("")
    text: str = ""
    tool: str = ""  # a tool to call instead of the text, if the request offers it
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.text) == bool(self.tool):
            raise ValueError("needs either `text` or `tool`")


def find_line(
    script: Sequence[ScriptLine],
    texts: Sequence[str],
    tools: Container[str],
) -> ScriptLine | None:
    """Returns the line for this point of a conversation, with filled `$name`s, or None.

    Args:
        texts: the texts of all messages.
        tools: names of the request's tools.
    """
    *before, last = texts
    history = "\n".join(before)
    for line in script:
        newest = line.newest.search(last)
        earlier = line.earlier.search(history)
        if newest and earlier and (not line.tool or line.tool in tools):
            values = {**earlier.groupdict(), **newest.groupdict()}
            text = _fill(line.text, values)
            arguments = _fill(line.arguments, values)
            return replace(line, text=text, arguments=arguments)
    return None


def _fill(value: Any, values: Mapping[str, str | None]) -> Any:
    """Fills `$name`s into all texts of a value. Unknown names stay as they are."""
    if isinstance(value, str):
        return Template(value).safe_substitute(values)
    if isinstance(value, Mapping):
        return {key: _fill(inner, values) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_fill(inner, values) for inner in value]
    return value


def parse(
    kind: type[T],
    data: object,
    place: str,
) -> T:
    """Checks data against a class. Raises InputError with the place, the field and the
    fault.
    """
    try:
        value: T = adapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field_path = ".".join(map(str, first["loc"]))
        fault = describe_fault(first, first["loc"], adapter(kind).json_schema())
        raise InputError(f"{place}: {field_path}: {fault}") from None
    return value


@dataclass(frozen=True, config=STRICT_FIELDS)
class Profile:
    name: str
    # Share of right answers by suite; default_skill for other suites.
    skill: Mapping[str, Share] = field(default_factory=dict)
    default_skill: Share = 0.7
    seed: int = 0  # models with the same seed draw the same random numbers for every item
    habits: Habits = field(default_factory=Habits)
    latency: Latency = field(default_factory=Latency)
    price: Price = field(default_factory=lambda: Price(1.0, 4.0))
    serves: Word = ""  # the `model` in answers; empty for the requested name
    build: Word = ""  # the end of the fingerprint; empty for a hash of the profile
    script: tuple[ScriptLine, ...] = ()  # fixed answers at points of a conversation

    def skill_in(self, suite: str) -> float:
        """Returns the share of right answers on a suite."""
        return self.skill.get(suite, self.default_skill)

    @property
    def fingerprint(self) -> str:
        """The `system_fingerprint` of every answer, which marks it as simulated."""
        return f"simulated-swapproof-{self.build or digest(self.as_json())[:10]}"

    def as_json(self) -> dict[str, Any]:
        """Returns the profile in the form in which `change_profile` reads it."""
        fields: dict[str, Any] = adapter(Profile).dump_python(self, mode="json")
        return fields


def load_profiles(path: Path = DEFAULT_PROFILES) -> dict[str, Profile]:
    """Loads profiles from YAML or JSON. Raises ConfigError or InputError with the place."""
    return {
        str(name): change_profile(
            Profile(str(name)), fields or {}, place=f"{path.name}: {name}"
        )
        for name, fields in parse_file(path).values.items()
    }


def change_profile(
    profile: Profile,
    changes: object,
    *,
    place: str,
) -> Profile:
    """Returns the profile with changed fields, in the form of a file or `POST /sim/profiles`.

    `skill` is a number for all suites, or a mapping by suite with an optional `default`.
    Raises InputError with the place and the field.
    """
    if not isinstance(changes, dict):
        raise InputError(f"{place}: must be an object")
    old_fields = profile.as_json()
    fields = {**changes}
    if "skill" in fields:
        skill = fields.pop("skill")
        by_suite = {**skill} if isinstance(skill, dict) else {"default": skill}
        fields["default_skill"] = by_suite.pop("default", profile.default_skill)
        fields["skill"] = {**profile.skill, **by_suite} if isinstance(skill, dict) else {}
    for part in ("habits", "latency", "price"):
        if isinstance(fields.get(part), dict):
            fields[part] = {**old_fields[part], **fields[part]}
    return parse(Profile, {**old_fields, **fields}, place)
