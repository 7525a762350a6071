"""Builds commands from declared operations (`harness.frame.operation`)."""

import inspect
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from harness.frame.configuration.setting import Range, Value
from harness.frame.operation import (
    PAGE,
    FinishedOperation,
    Input,
    Listing,
    Operation,
    OperationGroup,
)
from harness.frame.pagination import Page
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import PAGE as PAGE_OPTIONS
from harness.interfaces.cli.frame.command import (
    FiniteRange,
    WholeRange,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.session import Session

if TYPE_CHECKING:
    from harness.frame.people.access import Actor
    from harness.operations.context import Context


HELP_COLUMNS: Final = 92


@dataclass(frozen=True, slots=True)
class _CommandCaller:
    """The caller of a use case on the command line."""

    session: Session
    operation: Operation[Any]

    @property
    def ctx(self) -> "Context":
        if self.operation.needs_providers:
            return self.session.context_with_providers
        return self.session.context

    @property
    def actor(self) -> "Actor":
        return self.session.deciding_actor if self.operation.changes else self.session.actor

    @property
    def secret(self) -> bytes:
        return self.session.installation.secret


def operation_group(declared: OperationGroup) -> click.Group:
    """Builds the group of commands of all its operations."""
    group = click.Group(declared.command.rpartition(" ")[2], help=declared.words)
    add_commands(group, declared)
    return group


def add_commands(group: click.Group, declared: OperationGroup) -> None:
    for operation in declared.operations:
        if operation.command:
            group.add_command(_build(operation))


def _build(operation: Operation[Any]) -> click.Command:
    def run(call: Session, **given: Any) -> None:
        _print(operation, operation.run(_CommandCaller(call, operation), given))

    run.__signature__ = inspect.Signature(list(_parameters(operation)))  # type: ignore[attr-defined]
    return command(name=operation.verb, help=_wrap(operation.words))(run)


def _wrap(words: str) -> str:
    """Wraps paragraphs, because the generated reference copies the lines of a help."""
    paragraphs = words.split("\n\n")
    return "\n\n".join(textwrap.fill(text, HELP_COLUMNS) for text in paragraphs)


def _parameters(operation: Operation[Any]) -> Iterator[inspect.Parameter]:
    names = operation.argument_names
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    yield inspect.Parameter("call", positional, annotation=Session)
    # The paging options stand last.
    inputs = sorted(operation.inputs, key=lambda entered: entered.name == PAGE)
    for place, entered in enumerate(inputs):
        is_argument = place < len(names)
        if entered.declared.for_programs:
            continue
        yield inspect.Parameter(
            entered.name,
            positional if is_argument else inspect.Parameter.KEYWORD_ONLY,
            annotation=entered.kind,
            default=arg(names[place]) if is_argument else _option(entered),
        )


def _option(entered: Input) -> Any:
    if entered.name == PAGE:
        return PAGE_OPTIONS
    declared = entered.declared
    attributes: dict[str, Any] = {}
    if declared.metavar is not None:
        attributes["metavar"] = declared.metavar
    if declared.range is not None and entered.kind in (int, float):
        attributes["type"] = _number(declared.range, entered.kind)
    if not entered.is_required and entered.default is not None:
        attributes["default"] = entered.default
    elif entered.is_required and entered.kind is bool:
        attributes["required"] = True
    return opt(declared.meaning, *declared.flags, **attributes)


def _number(allowed: Range, kind: type) -> click.ParamType[Any]:
    if kind is int:
        return WholeRange(int(allowed.low), int(allowed.high))
    # A range without an upper bound prints none.
    high = None if math.isinf(allowed.high) else allowed.high
    return FiniteRange(allowed.low, high, min_open=allowed.above)


def _print(operation: Operation[Value], outcome: FinishedOperation[Value]) -> None:
    listing = operation.listing
    if listing is not None:
        _print_list(listing, outcome)
        return
    if operation.done is None:
        raise TypeError(f"the operation {operation.id} has neither `done` nor `listing`")
    shown = operation.document(outcome) if operation.document else outcome.result
    advice = operation.advice(outcome) if operation.advice else ""
    output.answer(shown, operation.done(outcome), advice=advice)


def _print_list(listing: Listing, outcome: FinishedOperation[Any]) -> None:
    rows = outcome.result
    if isinstance(rows, Page):
        output.note_page(rows)
    if not output.documented(tuple(rows)):
        output.table_of(listing.table(outcome), dict, empty=listing.empty)
    if listing.note is not None and (text := listing.note(outcome)):
        output.note(text)
