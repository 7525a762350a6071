"""The options of a record's declared settings (`harness.frame.configuration.setting`)."""

import re
from collections.abc import Callable
from dataclasses import make_dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

from harness.frame.configuration.setting import Declaration, plain_settings
from harness.frame.configuration.setting_values import read_setting
from harness.frame.errors import InputError
from harness.interfaces.cli.frame.command import Reads, Spec, opt

_UNIT: Final = re.compile(r"_(s|h|bps|usd)$")  # an option's metavar shows its unit


def options_of(record: type, *, new: str) -> Callable[..., object]:
    """Builds a dataclass whose fields are the options of a record's plain settings.

    An omitted option is None.

    Args:
        new: the subject of the help's sentence about a default, such as `New routes`.
    """
    options = [
        (declaration.name, declaration.kind | None, _build_option(declaration, new))
        for declaration in plain_settings(record)
    ]
    return make_dataclass("SettingOptions", options, frozen=True, kw_only=True)


def given_options(options: object) -> dict[str, Any]:
    """Returns the values of the given options by the setting's name."""
    return {name: value for name, value in vars(options).items() if value is not None}


def _build_option(declaration: Declaration, new: str) -> Spec:
    attributes: dict[str, Any] = {}
    if declaration.metavar is not None:
        attributes["metavar"] = declaration.metavar
    if declaration.written is not None and declaration.written.name:
        attributes["type"] = Reads(declaration.written.name, partial(read_setting, declaration))
    elif (
        declaration.optional
        and isinstance(declaration.removal, str)
        and declaration.kind is not str
    ):
        attributes["type"] = Reads("limit", partial(_read_limit, declaration))
    flag = _UNIT.sub("", declaration.name).replace("_", "-")
    default_flag = f"--{flag}/--no-{flag}" if declaration.kind is bool else f"--{flag}"
    text = " ".join(filter(None, (declaration.meaning, _describe_default(declaration, new))))
    spec: Spec = opt(text, declaration.flags or default_flag, **attributes)
    return spec


def _describe_default(declaration: Declaration, new: str) -> str:
    """Describes the value that applies without the option; empty if the default is empty."""
    default = declaration.written_default
    if declaration.optional:
        removal = "Empty" if declaration.removal == "" else f"{declaration.removal} (default)"
        return f"{removal}: {declaration.unset}."
    if default is None and declaration.unset:
        return f"{new}: {declaration.unset}."
    if declaration.kind is bool:
        return f"{new}: {'yes' if declaration.default else 'no'}."
    if isinstance(default, StrEnum):
        return f"{new}: {default.value}."
    if isinstance(default, float):
        return f"{new}: {default:g}."
    return f"{new}: {default}." if default != "" else ""


def _read_limit(declaration: Declaration, text: str) -> float | str:
    removal = str(declaration.removal)
    if text == removal:
        return removal
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number; write a number, or `{removal}`") from None
    if declaration.range is not None and number < declaration.range.low:
        low = declaration.range.low
        raise InputError(f"{text} is below {low:g}; write a larger number, or `{removal}`")
    return number
