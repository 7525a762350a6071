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


def operation_group(declaration: OperationGroup) -> click.Group:
    """Builds a group with the commands of all declared operations."""
    group = click.Group(declaration.command.rpartition(" ")[2], help=declaration.words)
    add_commands(group, declaration)
    return group


def add_commands(group: click.Group, declaration: OperationGroup) -> None:
    for operation in declaration.operations:
        if operation.command:
            group.add_command(_build_command(operation))


def _build_command(operation: Operation[Any]) -> click.Command:
    def run(call: Session, **inputs: Any) -> None:
        _print(operation, operation.run(_CommandCaller(call, operation), inputs))

    run.__signature__ = inspect.Signature(list(_list_parameters(operation)))  # type: ignore[attr-defined]
    help_text = _wrap(operation.words)
    return command(name=operation.verb, help=help_text, example=operation.example)(run)


def _wrap(words: str) -> str:
    """Wraps paragraphs, because the generated reference copies the lines of a help."""
    paragraphs = words.split("\n\n")
    return "\n\n".join(textwrap.fill(text, HELP_COLUMNS) for text in paragraphs)


def _list_parameters(operation: Operation[Any]) -> Iterator[inspect.Parameter]:
    names = operation.argument_names
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    yield inspect.Parameter("call", positional, annotation=Session)
    # The paging options stand last.
    inputs = sorted(operation.inputs, key=lambda input_: input_.name == PAGE)
    for place, input_ in enumerate(inputs):
        is_argument = place < len(names)
        if input_.declared.for_programs:
            continue
        yield inspect.Parameter(
            input_.name,
            positional if is_argument else inspect.Parameter.KEYWORD_ONLY,
            annotation=input_.kind,
            default=arg(names[place]) if is_argument else _build_option(input_),
        )


def _build_option(input_: Input) -> Any:
    if input_.name == PAGE:
        return PAGE_OPTIONS
    declaration = input_.declared
    attributes: dict[str, Any] = {}
    if declaration.metavar is not None:
        attributes["metavar"] = declaration.metavar
    if declaration.range is not None and input_.kind in (int, float):
        attributes["type"] = _build_number_type(declaration.range, input_.kind)
    if not input_.is_required and input_.default is not None:
        attributes["default"] = input_.default
    elif input_.is_required and input_.kind is bool:
        attributes["required"] = True
    return opt(declaration.meaning, *declaration.flags, **attributes)


def _build_number_type(allowed_range: Range, kind: type) -> click.ParamType[Any]:
    if kind is int:
        return WholeRange(int(allowed_range.low), int(allowed_range.high))
    # Otherwise the help would show an infinite upper bound.
    high = None if math.isinf(allowed_range.high) else allowed_range.high
    return FiniteRange(allowed_range.low, high, min_open=allowed_range.above)


def _print(operation: Operation[Value], outcome: FinishedOperation[Value]) -> None:
    listing = operation.listing
    if listing is not None:
        _print_list(listing, outcome)
        return
    if operation.done is None:
        raise TypeError(f"the operation {operation.id} has neither `done` nor `listing`")
    document = operation.document(outcome) if operation.document else outcome.result
    advice = operation.advice(outcome) if operation.advice else ""
    output.answer(document, operation.done(outcome), advice=advice)


def _print_list(listing: Listing, outcome: FinishedOperation[Any]) -> None:
    rows = outcome.result
    if isinstance(rows, Page):
        output.note_page(rows)
    if not output.documented(tuple(rows)):
        output.table_of(listing.table(outcome), dict, empty=listing.empty)
    if listing.note is not None and (text := listing.note(outcome)):
        output.note(text)
