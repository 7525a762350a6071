"""The options of a record's declared settings (`harness.frame.configuration.setting`)."""

import re
from collections.abc import Callable
from dataclasses import make_dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

from harness.frame.configuration.setting import Declaration, plain_settings
from harness.frame.errors import InputError
from harness.interfaces.cli.frame.command import Reads, Spec, opt

_UNIT: Final = re.compile(r"_(s|h|bps|usd)$")  # an option's metavar shows its unit


def options_of(record: type, *, new: str) -> Callable[..., object]:
    """Builds a dataclass whose fields are the options of a record's plain settings.

    Each is None if it is not given. new: the name of new records, whose default the help gives.
    """
    options = [
        (declared.name, declared.kind | None, _option(declared, new))
        for declared in plain_settings(record)
    ]
    return make_dataclass("SettingOptions", options, frozen=True, kw_only=True)


def given_options(options: object) -> dict[str, Any]:
    """Returns the values of the given options by the setting's name."""
    return {name: value for name, value in vars(options).items() if value is not None}


def _option(declared: Declaration, new: str) -> Spec:
    attributes: dict[str, Any] = {}
    if declared.metavar is not None:
        attributes["metavar"] = declared.metavar
    if declared.written is not None and declared.written.name:
        attributes["type"] = Reads(declared.written.name, declared.read)
    elif declared.optional and isinstance(declared.removal, str):
        attributes["type"] = Reads("limit", partial(_read_number, declared.removal))
    flag = _UNIT.sub("", declared.name).replace("_", "-")
    usual = f"--{flag}/--no-{flag}" if declared.kind is bool else f"--{flag}"
    text = " ".join(filter(None, (declared.meaning, _default(declared, new))))
    spec: Spec = opt(text, declared.flags or usual, **attributes)
    return spec


def _default(declared: Declaration, new: str) -> str:
    """Writes what applies without the option; empty for an empty text."""
    default = declared.written_default
    if declared.optional:
        return f"{declared.removal} (default): {declared.unset}."
    if declared.kind is bool:
        return f"{new}: {'yes' if declared.default else 'no'}."
    if isinstance(default, StrEnum):
        return f"{new}: {default.value}."
    if isinstance(default, float):
        return f"{new}: {default:g}."
    return f"{new}: {default}." if default != "" else ""


def _read_number(removal: str, text: str) -> float | str:
    if text == removal:
        return removal
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number; write a number, or `{removal}`") from None
