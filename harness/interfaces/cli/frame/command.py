"""`command` builds a click command from a typed function. A positional parameter becomes an
argument, a keyword-only parameter an option. Name and annotation give flag and type; the
default is `opt(…)`, `arg(…)` or `taken_from(…)`.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from harness.frame.errors import InputError, SwapproofError
from harness.frame.imports import (
    import_plain_structlog,
    pause_garbage_collection,
)
from harness.frame.pagination import MOST_LISTED, PageRequest
from harness.interfaces.cli.frame.session import Session, adopt_options


@dataclass(frozen=True, slots=True)
class LazyCommand:
    location: str  # `module:attribute`
    help: str  # the first line of the command's own help
    hidden: bool = False

    def load(self) -> click.Command:
        module, _, attribute = self.location.partition(":")
        with pause_garbage_collection():
            import_plain_structlog()
            command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.location} is not a click command")
        return command


class LazyCommandGroup(click.Group):
    """A group that lists its commands without importing them.

    sections: names of commands, by heading of the help.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, LazyCommand] | None = None,
        sections: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.sections = dict(sections or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [
            *self.lazy,
            *(n for n in super().list_commands(ctx) if n not in self.lazy),
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy and cmd_name not in self.commands:
            self.commands[cmd_name] = adopt_options(self.lazy[cmd_name].load())
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            names = self.list_commands(ctx)
            raise click.NoSuchCommand(
                error.command_name, possibilities=names, ctx=ctx
            ) from None

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        rows = dict(self._list_visible_commands())
        width = max(map(len, rows), default=0)
        for heading, names in self._group_by_section(rows):
            with formatter.section(heading):
                # Equal widths align the texts of all sections.
                formatter.write_dl([(name.ljust(width), rows[name]) for name in names])

    def _group_by_section(self, names: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
        if not self.sections:
            yield "Commands", list(names)
            return
        yield from self.sections.items()
        section_names = {name for section in self.sections.values() for name in section}
        if remaining := [name for name in names if name not in section_names]:
            yield "Others", remaining

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        options = click.Command.shell_complete(self, ctx, incomplete)
        return options + [
            CompletionItem(name, help=text)
            for name, text in self._list_visible_commands()
            if name.startswith(incomplete)
        ]

    def _list_visible_commands(self) -> list[tuple[str, str]]:
        eager = {
            name: LazyCommand("", command.get_short_help_str(200), command.hidden)
            for name, command in self.commands.items()
        }
        commands = {**eager, **self.lazy}
        names = [
            *self.lazy,
            *(name for name in sorted(eager) if name not in self.lazy),
        ]
        return [(name, commands[name].help) for name in names if not commands[name].hidden]


Word = TypeVar("Word", bound=StrEnum)
Value = TypeVar("Value")
NO_DEFAULT: Final = object()
# `\b` keeps click from wrapping the call, which people copy.
_EXAMPLE_HEADING: Final = "\b\nExample:\n  "
NOT_SHOWN: Final = (None, False, "", ())


@dataclass(frozen=True)
class Spec:
    """The attributes of a click parameter that do not follow from its name and annotation."""

    flags: Sequence[str]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class TakenFrom:
    build: Callable[..., object]


def opt(
    text: str,
    *flags: str,
    **attributes: Any,
) -> Any:
    """Describes an option. An option without a default is required unless it is a flag, may be
    repeated, or its type allows None.

    Args:
        text: the help text.
        flags: needed if the flag differs from the parameter's name.
        attributes: arguments of click.Option.
    """
    return Spec(flags, {"help": text, **attributes})


def arg(metavar: str | None = None, **attributes: Any) -> Any:
    return Spec((), {"metavar": metavar, **attributes})


def taken_from(build: Callable[..., object]) -> Any:
    """Describes several options that build one value.

    Args:
        build: a function, or a dataclass whose fields have `opt(…)` as default.
    """
    return TakenFrom(build)


class WholeRange(click.IntRange):
    name = "integer"  # for help and errors, instead of "integer range"


class FiniteRange(click.FloatRange):
    """A finite number. Refuses a percentage with the number to write."""

    name = "number"

    def _describe_range(self) -> str:
        # Without limits, Click's help would say `x<=None`.
        has_limits = self.min is not None or self.max is not None
        return super()._describe_range() if has_limits else ""

    def convert(
        self,
        value: float,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        percentage = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", str(value))
        if percentage is not None:
            takes_percent = param is not None and param.metavar == "PERCENT"
            number = float(percentage[1]) / (1 if takes_percent else 100)
            self.fail(f"{value!r} is not a number: write {number:g}", param, ctx)
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


UNITS = {
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
}


def _read_duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise InputError(f"{text!r} is not a duration: write 90s, 30m, 2h or 1d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


class Reads(click.ParamType[Value]):
    """Parses a value with a function; its InputError becomes a usage error."""

    def __init__(self, name: str, read: Callable[[str], Value]) -> None:
        self.name = name
        self._read = read

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Value:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # already parsed
        try:
            return self._read(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


def _read_answer_limit(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{text!r} is not a limit: write a number of tokens, or auto")
    return int(text)


ANSWER_LIMIT: Final = Reads("TOKENS|auto", _read_answer_limit)


class EnumChoice(click.Choice[Word]):
    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's signature
        return str(choice)


def command(
    group: click.Group | None = None,
    name: str | None = None,
    *,
    example: str = "",
    **attributes: Any,
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Registers a function `(session, argument, …, *, option, …)` as a command.

    The function returns the exit code, or None for 0.

    Args:
        group: None for a command that a LazyCommand loads.
        example: a call of the command, which its help ends with; only hidden commands lack it.
    """
    if example:
        attributes["epilog"] = f"{_EXAMPLE_HEADING}{example}"

    def register(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        def run(**values: Any) -> None:
            context = click.get_current_context()
            code = function(**_bind(function, values, context.ensure_object(Session)))
            if code is not None:
                context.exit(code)

        parameters = list(_build_parameters(function))
        decorate: Callable[[Callable[..., None]], click.Command]
        decorate = click.command(name, params=parameters, **attributes)
        click_command = decorate(run)
        if group is not None:
            group.add_command(click_command)
        return click_command

    return register


def read_example(built_command: click.Command) -> str:
    """Returns the call of swapproof that the command's help shows; empty without one."""
    heading, _, example = (built_command.epilog or "").partition(_EXAMPLE_HEADING)
    return "" if heading else example


def _bind(
    function: Callable[..., object],
    values: Mapping[str, Any],
    session: Session,
) -> dict[str, Any]:
    """Builds the function's arguments from the values that click parsed, by parameter name."""
    arguments: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        spec = parameter.default
        if parameter.annotation is Session:
            arguments[parameter.name] = session
        elif isinstance(spec, TakenFrom):
            arguments[parameter.name] = spec.build(**_bind(spec.build, values, session))
        else:
            arguments[parameter.name] = values[parameter.name]
    return arguments


def _build_parameters(function: Callable[..., object]) -> Iterator[click.Parameter]:
    for parameter in inspect.signature(function).parameters.values():
        spec = parameter.default
        if isinstance(spec, TakenFrom):
            yield from _build_parameters(spec.build)
        elif parameter.annotation is not Session:
            yield _build_parameter(parameter, spec if isinstance(spec, Spec) else Spec((), {}))


def _names_route(attributes: Mapping[str, Any]) -> bool:
    return str(attributes.get("metavar")).strip("[.]") == "ROUTE"


def complete_route(
    ctx: click.Context,
    param: click.Parameter,  # noqa: ARG001 - click's signature
    incomplete: str,
) -> list[str]:
    """Returns the names of routes that begin with the text, for a shell's completion."""
    from harness.routing.control import routes  # noqa: PLC0415 - only completion needs it

    session = ctx.find_root().ensure_object(Session)
    try:
        names = sorted(routes.load_table(session.context).routes)
    except SwapproofError:  # no installation, or its database does not answer
        return []
    finally:
        session.close()
    return [name for name in names if name.startswith(incomplete)]


def _build_parameter(parameter: inspect.Parameter, spec: Spec) -> click.Parameter:
    attributes = {**_read_type(parameter.annotation), **spec.attributes}
    if parameter.name == "route" or _names_route(attributes):
        attributes.setdefault("shell_complete", complete_route)
    may_repeat = attributes.get("multiple", False)
    if parameter.kind is not parameter.KEYWORD_ONLY:
        if attributes.pop("multiple", False):
            attributes["nargs"] = -1
        return click.Argument([parameter.name], **attributes)
    default = attributes.get("default", NO_DEFAULT)
    if isinstance(default, StrEnum):
        attributes["default"] = default.value
    is_flag = attributes.get("is_flag", False)
    attributes.setdefault("required", default is NO_DEFAULT and not (may_repeat or is_flag))
    attributes.setdefault(
        "show_default",
        not is_flag and default not in (*NOT_SHOWN, NO_DEFAULT),
    )
    flags = spec.flags or [f"--{parameter.name.strip('_').replace('_', '-')}"]
    if "/" in flags[0]:
        del attributes["is_flag"]
    return click.Option([*flags, parameter.name], **attributes)


def _read_type(kind: Any) -> dict[str, Any]:
    if get_origin(kind) in (Union, UnionType):
        inner = next(option for option in get_args(kind) if option is not type(None))
        return {
            **_read_type(inner),
            "required": False,
            "default": None,
        }
    if get_origin(kind) is tuple and get_args(kind)[-1] is ...:
        return {**_read_type(get_args(kind)[0]), "multiple": True}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"type": EnumChoice(kind)}
    return READ_AS.get(kind, {"type": kind})


READ_AS: Final[Mapping[type, dict[str, Any]]] = {
    bool: {"is_flag": True},
    timedelta: {
        "type": Reads("duration", _read_duration),
        "metavar": "TIME",
    },
    Path: {"type": click.Path(path_type=Path)},
    float: {"type": FiniteRange()},
}


def page_of(limit: int, *short: str) -> Any:
    """Describes the options --limit and --after.

    Args:
        short: further flags of --limit.
    """
    rows = WholeRange(1, MOST_LISTED)
    size = opt(
        "Maximum number of rows.",
        *short,
        "--limit",
        type=rows,
        default=limit,
    )
    after_text = "Continue after this cursor, which the previous page printed."

    def page_request(
        *,
        limit: int = size,
        after: str | None = opt(after_text, metavar="CURSOR"),
    ) -> PageRequest:
        return PageRequest(limit, after)

    return taken_from(page_request)


FILE: Final = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
PAGE: Final = page_of(100)
REASON: Final = opt("Reason, recorded in the audit log.")
OPTIONAL_REASON: Final = opt("Reason, recorded in the audit log.", default="")
ONLY_ROUTE: Final = opt("Only this route.", "--route", metavar="ROUTE")
ROUTE: Final = arg("ROUTE")
WATCH: Final = opt(
    "Refresh every 2 seconds until the end. In a pipe or a file: print one line per change.",
    "--watch",
)
