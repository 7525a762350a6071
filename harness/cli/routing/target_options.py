"""Click options that make a target beside its model's name (parameters, patches of the
request), for every command that names one, and how they become a `TargetSeed`.
"""

import json
from dataclasses import dataclass

import click

from harness.cli.frame.command import opt
from harness.config.routing import target_seed
from harness.domain.routing.target import RequestPatch
from harness.domain.settings import TargetSeed


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """Holds the options that describe a target beside its name."""

    parameters: tuple[str, ...] = opt(
        "A default body field, which a client's own value wins over; may be repeated.",
        "--param",
        metavar="KEY=VALUE",
    )
    patched: tuple[str, ...] = opt(
        "A body field set whatever the client sent; may be repeated.",
        "--patch-param",
        metavar="KEY=VALUE",
    )
    prompt_addendum: str = opt("Appended to the system message.", metavar="TEXT", default="")
    response_format: str | None = opt("Replaces the client's response_format.", metavar="JSON")


def requested_target(name: str, options: TargetOptions) -> TargetSeed:
    """Reads the target that a command's name and options ask for. Raises InputError for a name
    that is no `provider/model`, BadParameter for an option.
    """
    plainly = target_seed(name)
    patch = RequestPatch(
        parameters=body_fields("--patch-param", options.patched),
        prompt_addendum=options.prompt_addendum,
        response_format=_object("--response-format", options.response_format),
    )
    own = body_fields("--param", options.parameters)
    return TargetSeed(plainly.provider, plainly.model, own, patch)


def body_fields(option: str, given: tuple[str, ...]) -> dict[str, object]:
    """KEY=VALUE as a body field: VALUE is read as JSON where it is JSON, else as text."""
    fields: dict[str, object] = {}
    for value in given:
        key, equals, text = value.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", param_hint=option)
        try:
            fields[key] = json.loads(text, parse_constant=_no_constant)
        except ValueError:
            fields[key] = text
    return fields


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _object(option: str, text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise click.BadParameter(
            'a JSON object is needed, like {"type": "json_object"}', param_hint=option
        )
    return value
