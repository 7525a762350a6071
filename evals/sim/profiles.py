"""A profile defines a simulated model: skill by suite, answer habits, latency, price, error
rate, rejected parameters, script. Loads them from YAML, swaps two models' roles, applies
changes at run time.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from evals.sim.script import ScriptLine, parse_script
from harness.config.source_locations import check_size
from harness.domain.content_hash import digest
from harness.domain.errors import InputError
from harness.domain.routing.target import Price
from harness.domain.suggestions import did_you_mean

DEFAULT_PROFILES = Path(__file__).with_name("profiles.yaml")
JSON_FORMS = (
    "json_fences", "trailing_prose", "double_escaped", "single_quotes", "trailing_commas",
    "other_keys",
)  # fmt: skip
T = TypeVar("T", "Habits", "Latency", Price)


@dataclass(frozen=True, slots=True)
class Habits:
    """How often an answer has which form, each a share in [0, 1].

    JSON_FORMS concern JSON answers and exclude one another; none is used when the request asks
    for JSON by `response_format`.
    """

    json_fences: float = 0.0
    trailing_prose: float = 0.0
    double_escaped: float = 0.0
    single_quotes: float = 0.0
    trailing_commas: float = 0.0
    other_keys: float = 0.0
    verbose: float = 0.0  # a sentence before an answer that is not JSON
    markup: float = 0.0  # bold around its last line
    # A tool call written as JSON in the text. All give way to a system message that insists on
    # the form.
    calls_as_text: float = 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Time to the first token is log-normal (median in ms, sigma of its log); then a rate."""

    first_token_median_ms: float = 300.0
    sigma: float = 0.35
    tokens_per_s: float = 80.0

    def first_token_s(self, z: float) -> float:
        """Returns the seconds to the first token at a standard normal z."""
        return self.first_token_median_ms / 1000 * math.exp(self.sigma * z)

    def generation_s(self, tokens: int) -> float:
        return tokens / self.tokens_per_s


@dataclass(frozen=True)
class Profile:
    """Describes a simulated model."""

    name: str
    # Share of a suite's items answered rightly, by suite; default_skill for any other.
    skill: Mapping[str, float] = field(default_factory=dict)
    default_skill: float = 0.7
    seed: int = 0  # models of the same seed have the same luck on every item
    habits: Habits = field(default_factory=Habits)
    latency: Latency = field(default_factory=Latency)
    price: Price = field(default_factory=lambda: Price(1.0, 4.0))
    error_rate: float = 0.0  # share of requests answered with status 500
    rejects: tuple[str, ...] = ()  # request parameters answered with status 400
    # The `model` that answers report; without one, the name that was asked for.
    serves: str = ""
    # The end of the fingerprint that answers report; without one, a hash of the profile.
    build: str = ""
    # What it says at certain points of a conversation, instead of what it would.
    script: tuple[ScriptLine, ...] = ()

    def skill_in(self, suite: str) -> float:
        return self.skill.get(suite, self.default_skill)

    @property
    def fingerprint(self) -> str:
        """The `system_fingerprint` of every answer: says that it is simulated, and by what."""
        return f"simulated-swapgate-{self.build or digest(self.as_json())[:10]}"

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_profiles(path: Path = DEFAULT_PROFILES) -> dict[str, Profile]:
    """Loads profiles by name from a YAML or JSON file. Raises InputError with the place."""
    try:
        text = path.read_text(encoding="utf-8")
        check_size(text)
        raw = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"cannot read the profiles {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path.name}: not YAML: {error}") from None
    if not isinstance(raw, dict) or not raw:
        raise InputError(f"{path.name}: must be a mapping from model names to profiles")
    return {
        str(name): change_profile(
            Profile(str(name)), fields or {}, place=f"{path.name}: {name}"
        )
        for name, fields in raw.items()
    }


def swap_profiles(profiles: Mapping[str, Profile], pairs: Sequence[str]) -> dict[str, Profile]:
    """Returns the profiles with the roles of `A` and `B` exchanged for each `A=B`."""
    result = dict(profiles)
    for pair in pairs:
        a, _, b = pair.partition("=")
        for name in (a, b):
            if name not in result:
                raise InputError(f"cannot swap {pair!r}: {unknown(name, tuple(result))}")
        result[a], result[b] = result[b], result[a]
    return result


def change_profile(  # noqa: C901 - one case for each field
    profile: Profile, changes: object, *, place: str
) -> Profile:
    """The profile with some fields set, as a file or `POST /sim/profiles` gives them.

    `skill` is a number for all suites, or a mapping by suite with an optional `default`.
    Raises InputError with the place and the field.
    """
    values: dict[str, Any] = {}
    for key, value in known(changes, Profile, place).items():
        where = f"{place}: {key}"
        match key:
            case "skill":
                values |= skills(profile, value, where)
            case "habits":
                values[key] = overlaid(profile.habits, value, where, high=1.0)
            case "latency":
                values[key] = overlaid(profile.latency, value, where)
            case "price":
                values[key] = overlaid(profile.price, value, where)
            case "seed":
                values[key] = int(number(value, where))
            case "default_skill" | "error_rate":
                values[key] = number(value, where, high=1.0)
            case "rejects":
                values[key] = names(value, where)
            case "serves" | "build":
                values[key] = word(value, where)
            case "script":
                values[key] = parse_script(value, where)
            case _:
                raise InputError(f"{where}: cannot be set")
    return replace(profile, **values)


def skills(profile: Profile, value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"skill": {}, "default_skill": number(value, place, high=1.0)}
    by_suite = {str(k): number(v, f"{place}.{k}", high=1.0) for k, v in value.items()}
    default = by_suite.pop("default", profile.default_skill)
    return {"skill": {**profile.skill, **by_suite}, "default_skill": default}


def overlaid(part: T, changes: object, place: str, *, high: float = math.inf) -> T:
    fields = known(changes, type(part), place)
    new = replace(part, **{k: number(v, f"{place}.{k}", high=high) for k, v in fields.items()})
    if isinstance(new, Habits) and sum(getattr(new, form) for form in JSON_FORMS) > 1:
        raise InputError(f"{place}: the shares of the JSON forms add up to more than 1")
    if isinstance(new, Latency) and new.tokens_per_s <= 0:
        raise InputError(f"{place}.tokens_per_s: must be more than 0")
    return new


def known(changes: object, kind: type, place: str) -> dict[str, Any]:
    if not isinstance(changes, dict):
        raise InputError(f"{place}: must be an object, not {json.dumps(changes, default=str)}")
    fields = tuple(f.name for f in dataclasses.fields(kind))
    for key in changes:
        if key not in fields:
            raise InputError(f"{place}: {unknown(str(key), fields)}")
    return changes


def unknown(name: str, choices: Sequence[str]) -> str:
    hint = did_you_mean(name, choices, otherwise="; known are " + ", ".join(choices))
    return f"unknown name {name!r}{hint}"


def number(value: object, place: str, *, high: float = math.inf) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not (fits and 0 <= value <= high and math.isfinite(value)):  # type: ignore[operator, arg-type] # fits says it
        limit = "" if high == math.inf else f" and at most {high:g}"
        raise InputError(f"{place}: must be a number of at least 0{limit}, not {value!r}")
    return float(value)  # type: ignore[arg-type] # as above


def names(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{place}: must be a list of parameter names")
    return tuple(value)


def word(value: object, place: str) -> str:
    """Checks a name, which may be empty. Raises InputError with the place."""
    if not isinstance(value, str) or any(not c.isprintable() or c.isspace() for c in value):
        raise InputError(f"{place}: must be a name without blanks, not {value!r}")
    return value
