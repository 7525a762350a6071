"""Reads, checks, changes and describes the values of declared settings. Pure."""

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, cast

from harness.frame.configuration.setting import (
    Declaration,
    Value,
    WrittenForm,
    format_bound,
    settings_of,
)
from harness.frame.errors import InputError

_SHARE: Final = re.compile(r"\s*(?P<number>[0-9]{1,5}(\.[0-9]{1,4})?)\s*(?P<percent>%)?\s*")


def read_setting(declared: Declaration, value: Any) -> Any:
    """Converts a value as people write it, and checks its range. Raises InputError."""
    converted = declared.written.read(value) if declared.written else value
    check_setting(declared, converted)
    return converted


def check_setting(declared: Declaration, value: Any) -> None:
    """Checks the range of a number; None is valid. Raises InputError."""
    if declared.range is None or declared.holds(value):
        return
    if declared.written is None:
        text = f"{declared.range.text}, not {format_bound(value)}"
    else:
        ends = map(declared.format, declared.range[:2])
        text = f"{declared.written.allowed or ' to '.join(ends)}, not {declared.format(value)}"
    raise InputError(f"{declared.key}: {text}")


def check_settings(record: Any) -> None:
    """Checks the ranges of all numbers of a record. Raises InputError for the first fault."""
    kind: type = type(record)
    for name, declared in settings_of(kind).items():
        check_setting(declared, getattr(record, name))


def change_settings(record: Value, changes: Mapping[str, Any]) -> Value:
    """Returns the record with the given settings. `removal` makes an optional number null."""
    kind: type = type(record)
    declared = settings_of(kind)
    removed = {
        name: None
        for name, value in changes.items()
        if name in declared and declared[name].optional and value == declared[name].removal
    }
    changed: Value = replace(cast("Any", record), **{**changes, **removed})
    return changed


def describe_settings(record: Any) -> dict[str, str]:
    """Describes a record's settings by their captions; "" for an unset one."""
    kind: type = type(record)
    texts = {}
    for name, declared in settings_of(kind).items():
        value = getattr(record, name)
        texts[declared.caption] = "" if value is None else declared.format(value)
    return texts


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
    """Parses a share of any size into basis points.

    Args:
        what: the setting's name, for the error.
    """
    match_ = _SHARE.fullmatch(str(text))
    if match_ is None:
        raise InputError(f"{what}: {text!r} is not a share: write 1% or basis points (100)")
    number = Decimal(match_["number"]) * (100 if match_["percent"] else 1)
    if number != int(number):
        raise InputError(f"{what}: {text!r} is not in whole basis points (0.01 %)")
    return int(number)
