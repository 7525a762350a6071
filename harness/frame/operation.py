"""The declaration of a simple operation: once, beside its use case, for all interfaces. Pure.

An operation is a use case `(ctx, [actor,] …, [secret])` with its role and its words. The
command line builds a command from it, the API an endpoint, and the dashboard a dialog. The use
case's signature gives their parameters; a `Parameter` adds ranges, texts and names. Wizards,
`--watch`, and answers that need several use cases are written by hand.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Final, Generic, Protocol, TypeVar, get_args

from harness.frame.configuration.setting import Range
from harness.frame.people.access import Actor, Role

T = TypeVar("T")
NAME_LENGTH: Final = Range(1, 200)
TEXT_LENGTH: Final = Range(0, 10_000)
# The interface gives these arguments to a use case; no caller enters them.
GIVEN_BY_INTERFACE: Final = frozenset({"ctx", "actor", "secret"})
PAGE: Final = "page_request"  # the parameter that pages a list


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Describes one parameter of a use case, as far as the signature cannot."""

    meaning: str = ""  # a sentence for the option's help and the API's field
    kind: Any = None  # the type to read, if the annotation is too wide, such as Iterable
    length: Range = NAME_LENGTH  # of a text, in characters
    range: Range | None = None  # of a number, or of a duration in seconds
    flags: tuple[str, ...] = ()  # of the option, if they do not follow from the name
    metavar: str | None = None  # of the option
    api_name: str = ""  # the API's name, if it is not the parameter's
    label: str = ""  # in a dialog
    for_programs: bool = False  # whether only the API has it, such as a version to compare
    choices: Mapping[str, object] | None = None  # a dialog's values by label


REASON: Final = Parameter(
    meaning="Reason, recorded in the audit log.",
    length=TEXT_LENGTH,
)
STANDARD: Final[Mapping[str, Parameter]] = {"reason": REASON}


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter that the caller of an operation enters."""

    name: str
    kind: Any
    default: Any  # inspect.Parameter.empty for a required input
    declared: Parameter

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def plain_kind(self) -> Any:
        """The type without None."""
        if not isinstance(self.kind, UnionType):
            return self.kind
        return next(option for option in get_args(self.kind) if option is not NoneType)

    @property
    def takes_none(self) -> bool:
        return isinstance(self.kind, UnionType) and NoneType in get_args(self.kind)


class OperationCaller(Protocol):
    """The context, actor and secret that an interface gives to a use case. The interface reads
    the actor only if the use case needs it.
    """

    @property
    def ctx(self) -> Any: ...
    @property
    def actor(self) -> Actor: ...
    @property
    def secret(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FinishedOperation(Generic[T]):
    """A finished operation, for the sentences about it. inputs: by the parameter's name."""

    ctx: Any
    began_at: datetime
    result: T
    inputs: Mapping[str, Any]


def by_row(
    cells: Callable[[Any], Mapping[str, object]],
) -> Callable[[FinishedOperation[Any]], Iterable[Mapping[str, object]]]:
    """Builds the table of a Listing whose cells depend on their row alone."""
    return lambda listed: map(cells, listed.result)


@dataclass(frozen=True, slots=True)
class Listing:
    """The table of an operation that lists rows.

    table: returns the cells of each row by heading, from the operation's outcome. A time in a
    cell is shown in UTC.
    """

    table: Callable[[Any], Iterable[Mapping[str, object]]]
    empty: str  # a note instead of an empty table
    note: Callable[[Any], str] | None = None  # a note below it, from the operation's outcome


def _always(_: Any) -> bool:
    return True


def _find_id(subject: Any) -> Any:
    return subject if isinstance(subject, str) else subject.id


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogTexts:
    """The dashboard's dialog about a subject. A page shows its button beside the subject."""

    title: str
    button: str  # the label of the button that acts
    # Labels the button that opens the dialog about a subject; None for the title and `…`.
    opener: Callable[[Any], str] | None = None
    icon: str = "more_horiz"  # a name of Material Symbols
    # Describes the effect on a subject, in paragraphs with `code` and **names**. It gets the
    # context and the subject.
    effect: Callable[[Any, Any], Sequence[str]]
    note: Callable[[Any], str] | None = None  # a faint line about the subject
    applies: Callable[[Any], bool] = _always  # whether a subject gets the button
    # Returns the use case's first argument of a subject: by default a text itself, or the `id`
    # of an object.
    argument: Callable[[Any], Any] = _find_id
    typed_name: Callable[[Any], str] | None = None  # the name to type, for irreversible acts
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[T]):
    """One simple operation. It has `done` or `listing`."""

    use_case: Callable[..., T]
    role: Role  # the role that the use case requires; a viewer's operation changes nothing
    words: str  # the command's help: an imperative sentence, and paragraphs
    # The verb, and the names of its arguments, which are the use case's first ones: `end ID`.
    # The other parameters are options.
    command: str = ""
    example: str = ""  # a call of the command, for its help: `swapproof agent approve sw_1`
    # The method and path, whose names are the use case's first arguments. The other parameters
    # are fields of the body, or of a GET's query.
    endpoint: str = ""
    name: str = ""  # the operation's id in OpenAPI; empty for the use case's name
    body: str = ""  # the body's name in OpenAPI, if it does not follow
    body_text: str = ""  # the body's description
    status: int = 200
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    done: Callable[[FinishedOperation[T]], str] | None = None  # the sentence after success
    advice: Callable[[FinishedOperation[T]], str] | None = None  # the command's note after it
    # The command's JSON, if it is not the result.
    document: Callable[[FinishedOperation[T]], object] | None = None
    listing: Listing | None = None
    dialog: DialogTexts | None = None
    needs_providers: bool = False  # whether a command first stores the file's new providers

    @property
    def id(self) -> str:
        return self.name or self.use_case.__name__

    @property
    def changes(self) -> bool:
        return self.role > Role.VIEWER

    @property
    def verb(self) -> str:
        return self.command.partition(" ")[0]

    @property
    def argument_names(self) -> Sequence[str]:
        """The names of the command's arguments for people."""
        return self.command.split()[1:]

    @property
    def path_names(self) -> Sequence[str]:
        """The names in the endpoint's path."""
        return re.findall(r"{(\w+)", self.endpoint)

    @property
    def inputs(self) -> Sequence[Input]:
        """The parameters that a caller enters, in the order of the use case."""
        declared = {**STANDARD, **self.parameters}
        return [
            _read_input(parameter, declared.get(parameter.name, Parameter()))
            for parameter in inspect.signature(self.use_case).parameters.values()
            if parameter.name not in GIVEN_BY_INTERFACE
        ]

    def run(self, caller: OperationCaller, inputs: Mapping[str, Any]) -> FinishedOperation[T]:
        """Calls the use case.

        Args:
            inputs: by name.

        Raises as the use case.
        """
        accepted = inspect.signature(self.use_case).parameters
        ctx = caller.ctx
        context_arguments = [ctx, caller.actor] if "actor" in accepted else [ctx]
        secret = {"secret": caller.secret} if "secret" in accepted else {}
        began_at = ctx.clock.now()
        return FinishedOperation(
            ctx, began_at, self.use_case(*context_arguments, **inputs, **secret), inputs
        )


def _read_input(parameter: inspect.Parameter, declared: Parameter) -> Input:
    kind = parameter.annotation if declared.kind is None else declared.kind
    return Input(parameter.name, kind, parameter.default, declared)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationGroup:
    """The operations on one kind of subject."""

    command: str  # the words before the verb: `route break-glass`
    words: str  # the help of the group of commands
    operations: tuple[Operation[Any], ...]
