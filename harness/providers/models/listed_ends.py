"""Reads the end of a model from an entry of a provider's list. Pure.

Providers publish different forms, and change them. So one table (LISTED_FIELDS) tells what each
field of each form means, and no provider has code of its own. `tests/world/ends` has an example
of each form, with its source and the day on which it was seen. A field whose name suggests an
end and that the table lacks is unknown: `find_unknown_fields` finds it, so that people see it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from enum import StrEnum
from itertools import islice
from typing import Final

from harness.providers.models.end_dates import parse_unix_s
from harness.providers.models.model_ends import EndDates

# A name in a provider's list. ASCII only, because other letters can look alike, and people
# approve names by sight.
LISTABLE_NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")


class FieldMeaning(StrEnum):
    """What a field of a listed entry says."""

    END = "end"  # the first day on which the model may be gone
    DEPRECATED = "deprecated"  # the day from which the provider advises against the model
    STATE = "state"  # a word or a flag that may call the model deprecated
    REPLACEMENT = "replacement"  # the model that the provider names in its place
    HARMLESS = "harmless"  # its name suggests an end, but it says nothing about the model's end


# By the field's name; a nested field's name has the names of the fields around it. Azure's list
# of a location has these fields in `model`, which the names omit.
LISTED_FIELDS: Final[Mapping[str, FieldMeaning]] = {
    # OpenAI, and Azure's API v1
    "shutdown_date": FieldMeaning.END,
    # Anthropic
    "retires_at": FieldMeaning.END,
    "deprecated_at": FieldMeaning.DEPRECATED,
    "lifecycle": FieldMeaning.STATE,
    # OpenRouter, and the lists that providers offer to it
    "expiration_date": FieldMeaning.END,
    "deprecation_date": FieldMeaning.END,
    # Mistral
    "deprecation": FieldMeaning.END,
    "deprecation_replacement_model": FieldMeaning.REPLACEMENT,
    # Azure
    "deprecation.inference": FieldMeaning.END,
    "deprecation.fine_tune": FieldMeaning.HARMLESS,  # ends the tuning of the model
    "deprecation.fineTune": FieldMeaning.HARMLESS,
    "deprecation.deprecationStatus": FieldMeaning.HARMLESS,  # of the day: planned or tentative
    "lifecycle_status": FieldMeaning.STATE,
    "lifecycleStatus": FieldMeaning.STATE,
    "replacementConfig.targetModelName": FieldMeaning.REPLACEMENT,
    "replacementConfig.autoUpgradeStartDate": FieldMeaning.HARMLESS,  # for some deployments
    "replacementConfig.upgradeOnExpiryLeadTimeDays": FieldMeaning.HARMLESS,
    "skus.deprecationDate": FieldMeaning.HARMLESS,  # ends one way to deploy the model
    "skus.lifecycleStatus": FieldMeaning.HARMLESS,
    # Bedrock
    "modelLifecycle.endOfLifeTime": FieldMeaning.END,
    "modelLifecycle.legacyTime": FieldMeaning.DEPRECATED,
    "modelLifecycle.status": FieldMeaning.STATE,
    "modelLifecycle.startOfLifeTime": FieldMeaning.HARMLESS,
    "modelLifecycle.publicExtendedAccessTime": FieldMeaning.HARMLESS,  # a higher price
    # Cohere
    "is_deprecated": FieldMeaning.STATE,
    # Together's list of supported models
    "status": FieldMeaning.STATE,
}
_END_FIELDS: Final = frozenset(
    name.partition(".")[0]
    for name, meaning in LISTED_FIELDS.items()
    if meaning is FieldMeaning.END
)
_DEPRECATED_STATES: Final = frozenset(
    {"deprecated", "deprecating", "legacy", "retired", "supported_model_status_deprecated"}
)
_SUGGESTS_END: Final = re.compile(
    r"(?<!up)date|deprecat|sunset|retir|shut_?down|expir|life_?cycle|end_?of_?life"
    r"|discontinu|decommission",
    re.ASCII | re.IGNORECASE,
)
_DEEPEST: Final = 3  # nested fields
_MOST_NESTED: Final = 20  # read elements of a list inside an entry
_MOST_SHOWN: Final = 5
_LONGEST: Final = 64
# Unix times of lists, from 2001 to 2099. Other numbers are not times in seconds.
_LEAST_UNIX_S: Final = 1_000_000_000
_MOST_UNIX_S: Final = 4_102_444_800
# Other years are no statement: Go's `0001-01-01T00:00:00Z` and 1970 mean an absent time.
_YEARS: Final = range(2001, 2100)


def parse_listed_end(entry: Mapping[str, object]) -> EndDates:
    """Parses the end in an entry of a provider's or gateway's list. The earliest of several
    days counts. A replacement counts only for a model that ends or is deprecated: Azure also
    names the next version of other models.
    """
    values: dict[FieldMeaning, list[object]] = {meaning: [] for meaning in FieldMeaning}
    has_state = False
    for name, value in walk_fields(entry):
        if name in LISTED_FIELDS:
            values[LISTED_FIELDS[name]].append(value)
        if LISTED_FIELDS.get(name) is FieldMeaning.STATE:
            has_state = has_state or _is_deprecated_state(name, value)
    ends_on = _find_earliest(values[FieldMeaning.END])
    deprecated_on = _find_earliest(values[FieldMeaning.DEPRECATED])
    is_deprecated = has_state or deprecated_on is not None
    names = filter(_is_name, values[FieldMeaning.REPLACEMENT])
    replacement = str(next(names, "")) if ends_on or is_deprecated else ""
    return EndDates(ends_on, deprecated_on, is_deprecated, replacement)


def tells_end(entry: Mapping[str, object]) -> bool:
    """Tells whether an entry has a field for an end, also an empty one."""
    return not _END_FIELDS.isdisjoint(_unwrap(entry))


def find_unknown_fields(entries: Iterable[object]) -> Mapping[str, object]:
    """Finds the fields that may state an end and that Swapproof cannot read, in a list's
    entries: fields whose name suggests an end and is not in LISTED_FIELDS, and fields for a day
    whose value is no day.

    Returns by the field's name an example of its values; None if it is always empty.
    """
    found: dict[str, object] = {}
    for entry in entries:
        if not isinstance(entry, Mapping):
            continue
        for name, value in walk_fields(entry):
            if _is_unread(name, value) and found.get(name) is None:
                found[name] = value
    return dict(sorted(found.items()))


def describe_unknown_fields(fields: Mapping[str, object]) -> str:
    """Describes unknown fields for people: `retire_on ("2026-12-11")`. Escapes what is not
    ASCII, because a list is untrusted.
    """
    shown = [
        f"{_shorten(json.dumps(name)[1:-1])} ({_shorten(_show(value))})"
        for name, value in islice(fields.items(), _MOST_SHOWN)
    ]
    more = len(fields) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def walk_fields(
    entry: Mapping[str, object], prefix: str = "", depth: int = 1
) -> Iterator[tuple[str, object]]:
    """Yields the fields of an entry, also nested ones. A field with further fields has no value
    of its own.
    """
    for name, value in (_unwrap(entry) if depth == 1 else entry).items():
        if depth == 1 and name == "model" and isinstance(value, Mapping):
            continue
        path = f"{prefix}{name}"
        nested = value if isinstance(value, list) else [value]
        mappings = [item for item in nested[:_MOST_NESTED] if isinstance(item, Mapping)]
        if not mappings:
            yield path, value
        elif depth < _DEEPEST:
            for mapping in mappings:
                yield from walk_fields(mapping, f"{path}.", depth + 1)


def _unwrap(entry: Mapping[str, object]) -> Mapping[str, object]:
    model = entry.get("model")
    return {**entry, **model} if isinstance(model, Mapping) else entry


def _is_unread(name: str, value: object) -> bool:
    meaning = LISTED_FIELDS.get(name)
    if meaning is None:
        return _SUGGESTS_END.search(name) is not None
    is_day = meaning in (FieldMeaning.END, FieldMeaning.DEPRECATED)
    return is_day and value not in (None, "", []) and _parse_day(value) is None


def _find_earliest(values: Iterable[object]) -> date | None:
    return min((day for day in map(_parse_day, values) if day is not None), default=None)


def _is_deprecated_state(name: str, value: object) -> bool:
    if isinstance(value, bool):
        # A server's `"status": true` says that the model is ready.
        return value and "deprecat" in name
    return isinstance(value, str) and value.lower() in _DEPRECATED_STATES


def _is_name(value: object) -> bool:
    return isinstance(value, str) and LISTABLE_NAME.fullmatch(value) is not None


def _show(value: object) -> str:
    # A list may be nested too deeply for its text.
    return "a list" if isinstance(value, list) else json.dumps(value)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _parse_day(value: object) -> date | None:
    """Parses a Unix time in seconds, or a day or time in ISO 8601; None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return parse_unix_s(value) if _LEAST_UNIX_S <= value < _MOST_UNIX_S else None
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(value.strip())
        day = (time.astimezone(UTC) if time.tzinfo is not None else time).date()
        return day if day.year in _YEARS else None
    return None
