"""The schema of the configuration file: each section's keys, types and defaults.

Entries are pydantic models, or dataclasses that other packages own. A number is declared with
its meaning and range (`harness.frame.configuration.setting`). Descriptions of other keys are
the comments beside them, so that reference and code cannot differ. `configuration` and
`validation_errors` check the rules between keys.
"""

import ast
import inspect
import io
import sys
import tokenize
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from harness.app.configuration.model import ControlSettings, SpendingSettings
from harness.app.configuration.operations import CaptureEntry, FreezeEntry
from harness.app.configuration.routing import RouteEntry, build_settings_entry
from harness.app.configuration.validation_errors import (
    config_error,
    require_no_retired_keys,
    without_ignored_keys,
)
from harness.evals.settings import JudgeFields, SuiteFields
from harness.frame.alerts.alert_record import AlertSettings
from harness.frame.configuration.setting import Declaration, settings_of
from harness.frame.configuration.source_locations import Document
from harness.frame.errors import ConfigError, InputError
from harness.frame.people.limits import EvalLimits
from harness.gate.policy import PolicyFields
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import Capabilities
from harness.providers.models.catalogue import CatalogueFacts
from harness.providers.oauth import OAuthOverrides
from harness.providers.target import Price, ProviderSettings
from harness.routing.settings import (
    AgentSettings,
    RouterSettings,
    UiSettings,
)


def describe_fields(schema: dict[str, Any], root: type[BaseModel]) -> dict[str, Any]:
    """Adds declarations and comments of the fields to a JSON Schema, in place, and returns it.

    Args:
        root: the model of `schema`.

    Existing descriptions stay.
    """
    for name, cls in _find_described_classes(root).items():
        definition = schema if cls is root else schema.get("$defs", {}).get(name, {})
        properties = definition.get("properties", {})
        for key, declared in (settings_of(cls) if is_dataclass(cls) else {}).items():
            if key in properties:
                properties[key] |= _build_keywords(declared)
        for base in cls.__mro__[:-1]:
            for key, comment in field_comments(base).items():
                if key in properties:
                    properties[key].setdefault("description", comment)
    return schema


def _build_keywords(declared: Declaration) -> dict[str, Any]:
    """Returns the keywords of a JSON Schema for a declared setting.

    `x-range` and `x-unit` are texts for people.
    """
    keywords: dict[str, Any] = {"description": declared.description}
    allowed = declared.range
    if allowed is not None and declared.written is None:
        lowest = 0 if allowed.zero else allowed.low
        keywords |= {
            "exclusiveMinimum" if allowed.above else "minimum": lowest,
            "maximum": allowed.high,
            "x-range": allowed.text,
            "x-unit": declared.unit,
        }
    return keywords


def field_comments(cls: type) -> Mapping[str, str]:
    """Maps each field to its comment, which ends the field's line or stands above the field.

    Reads the class's source; empty if only bytecode is installed.
    """
    return _read_comments(cls.__module__).get(cls.__name__, {})


@cache
def _read_comments(module: str) -> Mapping[str, Mapping[str, str]]:
    """Maps each class to its fields, and each field to its comment. Caches a whole
    module, because parsing it for each class took most of the time of `swapproof
    init`.
    """
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # only bytecode is installed
        return {}
    comments = {
        token.start[0]: (
            token.string.lstrip("# "),
            not token.line[: token.start[1]].strip(),
        )
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        node.name: _read_class_comments(node, comments)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }


def _read_class_comments(
    node: ast.ClassDef, comments: Mapping[int, tuple[str, bool]]
) -> Mapping[str, str]:
    """Maps a class's fields to comments. A comment `a, b: text` describes both fields.

    Args:
        comments: by line; each with whether it stands alone in its line.
    """
    comment_by_field: dict[str, str] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            comment = _find_comment(statement, comments)
            names, colon, text = comment.partition(": ")
            fields = names.split(", ")
            if colon and statement.target.id in fields:  # one comment for several fields
                comment_by_field |= dict.fromkeys(fields, text)
            elif comment:
                comment_by_field[statement.target.id] = comment
    return comment_by_field


def _find_comment(statement: ast.AnnAssign, comments: Mapping[int, tuple[str, bool]]) -> str:
    """Returns the comment at the end of a field's line, or else the lines of comments
    above it.
    """
    trailing, is_alone = comments.get(statement.end_lineno or statement.lineno, ("", False))
    if trailing and not is_alone:
        return trailing.partition("noqa:")[0].rstrip("# ")
    lines: list[str] = []
    line = statement.lineno - 1
    while line in comments and comments[line][1]:
        lines.insert(0, comments[line][0])
        line -= 1
    return " ".join(lines)


def _find_described_classes(root: type) -> dict[str, type]:
    """Finds all described classes that a class's annotations reach, by name."""
    classes: dict[str, type] = {}
    waiting: list[type] = [root]
    while waiting:
        cls = waiting.pop()
        if cls.__name__ not in classes:
            classes[cls.__name__] = cls
            for hint in typing.get_type_hints(cls, include_extras=True).values():
                waiting += _find_annotated_classes(hint)
    return classes


def _find_annotated_classes(hint: Any) -> Iterator[type]:
    """Yields the described classes inside an annotation."""
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, BaseModel)):
        yield hint
    for inner in typing.get_args(hint):
        yield from _find_annotated_classes(inner)


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


if TYPE_CHECKING:
    ProviderKeys = object
else:
    ProviderKeys = build_settings_entry(ProviderSettings)


@dataclass(frozen=True, kw_only=True)
class ProviderEntry(ProviderKeys):
    kind: str = "custom"  # sets protocol and address; see docs/reference/providers.md
    api_base: str = ""  # API address; optional for a kind that has one
    # Headers of every request, by name.
    extra_headers: dict[str, str] = field(default_factory=dict)
    # Prices by model; the catalogue fills in missing prices.
    prices: dict[str, Price] = field(default_factory=dict)
    # Variables of further keys, used if the first key is out of quota or refused.
    more_api_key_envs: tuple[str, ...] = ()
    # Abilities by model that differ from the catalogue's.
    models: dict[str, Capabilities] = field(default_factory=dict)
    # Body fields of every request.
    extra_body: dict[str, object] = field(default_factory=dict)
    tiers: dict[str, str] = field(default_factory=dict)  # a model for each name, such as `fast`
    # For all eval workers of this machine together.
    eval_limits: EvalLimits = field(default_factory=EvalLimits)

    def __post_init__(self) -> None:
        kind = PROVIDER_KINDS.get(self.kind)
        if kind is not None and not self.api_base:
            object.__setattr__(self, "api_base", kind.api_base)


@dataclass(frozen=True)
class JudgeEntry(JudgeFields):
    target: str  # provider/model
    # Parameters of the judge's requests, such as temperature.
    parameters: dict[str, object] = field(default_factory=dict, kw_only=True)
    # Data file of answers with human scores.
    references: str | None = field(default=None, kw_only=True)


# Reports show these names, so they must not contain markup.
GROUP_FIELD_PATTERN: Final = r"^[\w .-]{0,64}$"


@dataclass(frozen=True, kw_only=True)
class SuiteEntry(SuiteFields):
    path: str | None = None  # JSONL or CSV file of the items; instead of `task`
    judge: JudgeEntry | None = None  # the model that scores, for judged scorers
    cluster: Annotated[str, Field(pattern=GROUP_FIELD_PATTERN)] = ""
    slices: Annotated[
        tuple[Annotated[str, Field(min_length=1, pattern=GROUP_FIELD_PATTERN)], ...],
        Field(max_length=5),
    ] = ()


class CodeEntry(BaseModel):
    """Settings of the scorer `code`, which runs code that models write."""

    model_config = _STRICT
    uncontained: bool = Field(
        default=False,
        description="run code even without a sandbox; scorer names then end in `+uncontained`",
    )


class FileConfig(BaseModel):
    """Describes Swapproof's configuration file."""

    model_config = _STRICT
    database_url: str = Field("", description="SQLAlchemy URL; if empty, SQLite in `home`")
    home: str = Field(".swapproof", description="folder for state, beside this file")
    router: RouterSettings = RouterSettings()  # the process that serves requests
    # The process that evaluates, decides and moves canaries.
    control: ControlSettings = ControlSettings()
    ui: UiSettings = UiSettings()  # the dashboard
    agents: AgentSettings = Field(
        AgentSettings(),
        description="agents over HTTP; see docs/reference/agents.md",
    )
    providers: dict[str, ProviderEntry] = {}  # where models are called, by name
    suites: dict[str, SuiteEntry] = {}  # evals, by name
    code: CodeEntry = Field(CodeEntry(), description="models' code: docs/reference/suites.md")
    policies: dict[str, PolicyFields] = {}  # thresholds of gate and canary, by name
    # Names that clients use as `model`. A route is created if the database lacks it.
    routes: dict[str, RouteEntry] = {}
    alerts: AlertSettings = Field(
        AlertSettings(),
        description="where alerts go; see docs/how-to/alerts.md",
    )
    data_classes: dict[str, list[str]] = Field(
        {},
        description="maps each data class to the providers that may see it",
    )
    capture: CaptureEntry = Field(
        CaptureEntry(keep=[]),
        description="redaction; see docs/how-to/capture.md",
    )
    catalogue: dict[str, CatalogueFacts] = Field(
        {},
        description="facts about models, by KIND/MODEL; see docs/reference/models.md",
    )
    oauth: dict[str, OAuthOverrides] = Field(
        {},
        description="sign-in addresses, by provider; see docs/how-to/credentials.md",
    )
    switches: list[str] = Field(
        [],
        description="kill switches that a router reads at its start: provider:NAME, "
        "target:ID or ROUTE=provider:NAME; avoid:provider:NAME makes routes avoid the provider",
    )
    spending: SpendingSettings = Field(
        SpendingSettings(),
        description="the monthly cap; see docs/how-to/spending.md",
    )
    freezes: list[FreezeEntry] = Field(
        [],
        description="weekly freezes of routes; see docs/how-to/freezes.md",
    )


@cache
def json_schema() -> dict[str, object]:
    """Returns the file's JSON Schema, for the reference, editors and hints in errors."""
    schema: dict[str, Any] = FileConfig.model_json_schema()
    return describe_fields(schema, FileConfig)


def parse_config(document: Document) -> FileConfig:
    """Checks each key of a document.

    Raises ConfigError for the first fault, with the nearest known key.
    Raises RetiredKeys if the document has keys of earlier versions.
    """
    require_no_retired_keys(document)
    try:
        return FileConfig.model_validate(without_ignored_keys(document))
    except ValidationError as error:
        raise config_error(document, error, json_schema()) from None
    except InputError as error:
        # Each value is valid, but their combination is not.
        raise ConfigError(f"{document.place(('router',))}: router.{error}") from None


def whole_file(document: Document) -> Mapping[str, object]:
    """Returns the values of a document with all defaults, in the names of the file."""
    return parse_config(document).model_dump(by_alias=True)
