"""Click options that make a target beside its model's name (parameters, patches of the
request), for every command that names one, and how they become a `TargetSeed`.
"""

import json
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar

import click

from harness.config.routing import target_seed
from harness.domain.routing.target import RequestPatch
from harness.domain.settings import TargetSeed

F = TypeVar("F", bound=Callable[..., Any])


class TargetOptions(TypedDict):
    """Holds the options that describe a target, under the names that click gives them."""

    parameters: tuple[str, ...]
    patched: tuple[str, ...]
    prompt_addendum: str
    response_format: str | None


def target_options(whose: str = "") -> Callable[[F], F]:
    """Adds a target's four options to a command. whose: said in front of each one's help."""
    options = (
        click.option(
            "--param",
            "parameters",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"{whose}A default body field, which a client's own value wins over; "
            "may be repeated.",
        ),
        click.option(
            "--patch-param",
            "patched",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"{whose}A body field set whatever the client sent; may be repeated.",
        ),
        click.option(
            "--prompt-addendum",
            default="",
            metavar="TEXT",
            help=f"{whose}Appended to the system message.",
        ),
        click.option(
            "--response-format",
            metavar="JSON",
            help=f"{whose}Replaces the client's response_format.",
        ),
    )

    def add_all(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add_all


def requested_target(name: str, options: TargetOptions) -> TargetSeed:
    """Reads the target that a command's name and options ask for. Raises InputError for a name
    that is no `provider/model`, BadParameter for an option.
    """
    plainly = target_seed(name)
    patch = RequestPatch(
        parameters=body_fields("--patch-param", options["patched"]),
        prompt_addendum=options["prompt_addendum"],
        response_format=_object("--response-format", options["response_format"]),
    )
    own = body_fields("--param", options["parameters"])
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
