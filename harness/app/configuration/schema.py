"""The schema of the configuration file: each section's keys, types and defaults.

Entries are pydantic models, or dataclasses that other packages own. Descriptions of keys are
the comments beside them, so that reference and code cannot differ. Rules between keys are not
here: `validation_errors` has the ranges, and `configuration` checks the rest.
"""

import ast
import inspect
import io
import sys
import tokenize
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import date
from functools import cache
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from harness.app.configuration.model import ControlSettings, SpendingSettings
from harness.app.configuration.operations import CaptureEntry, FreezeEntry
from harness.app.configuration.routing import RouteEntry
from harness.app.configuration.validation_errors import (
    config_error,
    require_no_retired_keys,
    without_ignored_keys,
)
from harness.evals.settings import SuiteFields
from harness.frame.alerts.alert_record import AlertSettings
from harness.frame.configuration.source_locations import Document
from harness.frame.errors import ConfigError, InputError
from harness.frame.people.limits import EvalLimits
from harness.gate.policy import (
    CanaryPolicy,
    ChangeReferenceRule,
    GatePolicy,
    Policy,
    PromotionMode,
)
from harness.gate.suite_plan import ClaimPopulation
from harness.providers.api_base_rules import api_base_example
from harness.providers.kinds import PROVIDER_KINDS, check_kind
from harness.providers.models.capabilities import Capabilities
from harness.providers.models.catalogue import ABILITIES
from harness.providers.oauth import OAuthOverrides
from harness.providers.target import Price
from harness.routing.settings import (
    AgentSettings,
    RouterSettings,
    UiSettings,
)


def describe_fields(schema: dict[str, Any], root: type[BaseModel]) -> dict[str, Any]:
    """Adds the fields' comments as descriptions to a JSON Schema, in place, and returns it.

    root: the model of which `schema` is the schema. An existing description stays.
    """
    for name, cls in _classes(root).items():
        definition = schema if cls is root else schema.get("$defs", {}).get(name, {})
        properties = definition.get("properties", {})
        for base in cls.__mro__[:-1]:
            for field, comment in field_comments(base).items():
                if field in properties:
                    properties[field].setdefault("description", comment)
    return schema


def field_comments(cls: type) -> Mapping[str, str]:
    """Maps each field to its comment, which ends the field's line or stands above the field.

    Reads the class's source; empty if only bytecode is installed.
    """
    return _comments_in(cls.__module__).get(cls.__name__, {})


@cache
def _comments_in(module: str) -> Mapping[str, Mapping[str, str]]:
    """Maps class to field to comment.

    Caches a whole module: parsing it for each class took most of the time of `swapgate init`.
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
        node.name: _comments_of_class(node, comments)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }


def _comments_of_class(
    node: ast.ClassDef, comments: Mapping[int, tuple[str, bool]]
) -> Mapping[str, str]:
    """Maps a class's fields to comments. A comment `a, b: text` describes both fields.

    comments: by line, with whether code precedes the comment.
    """
    described: dict[str, str] = {}
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            comment = _comment_of(field, comments)
            names, colon, text = comment.partition(": ")
            fields = names.split(", ")
            if colon and field.target.id in fields:  # one comment for several fields
                described |= dict.fromkeys(fields, text)
            elif comment:
                described[field.target.id] = comment
    return described


def _comment_of(field: ast.AnnAssign, comments: Mapping[int, tuple[str, bool]]) -> str:
    """Returns the comment at the end of a field's line, or else the lines of comments
    above it.
    """
    trailing, alone = comments.get(field.end_lineno or field.lineno, ("", False))
    if trailing and not alone:
        return trailing.partition("noqa:")[0].rstrip("# ")
    lines: list[str] = []
    line = field.lineno - 1
    while line in comments and comments[line][1]:
        lines.insert(0, comments[line][0])
        line -= 1
    return " ".join(lines)


def _classes(root: type) -> dict[str, type]:
    """Finds all described classes that a class's annotations reach, by name."""
    found: dict[str, type] = {}
    waiting: list[type] = [root]
    while waiting:
        cls = waiting.pop()
        if cls.__name__ not in found:
            found[cls.__name__] = cls
            for hint in typing.get_type_hints(cls, include_extras=True).values():
                waiting += _described(hint)
    return found


def _described(hint: Any) -> Iterator[type]:
    """Yields the described classes inside an annotation."""
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, BaseModel)):
        yield hint
    for inner in typing.get_args(hint):
        yield from _described(inner)


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class ProviderEntry(BaseModel):
    model_config = _STRICT
    kind: str = "custom"  # sets protocol and address; see docs/reference/providers.md
    api_base: str = Field(
        "",
        validate_default=True,
        description="API address; optional for a kind that has one",
    )
    # Environment variable that holds the key; NAME_FILE holds the path of a key file.
    api_key_env: str | None = None
    extra_headers: dict[str, str] = {}  # headers of every request, by name
    prices: dict[str, Price] = {}  # prices by model; the catalogue fills in missing prices
    # Variables of further keys, used if the first key is out of quota or refused.
    more_api_key_envs: tuple[str, ...] = ()
    models: dict[str, Capabilities] = {}  # abilities by model that differ from the catalogue's
    extra_body: dict[str, object] = Field({}, description="body fields of every request")
    tiers: dict[str, str] = Field({}, description="a model for each name, such as `fast`")
    eval_limits: EvalLimits = Field(
        EvalLimits(),
        description="for all eval workers of this machine together",
    )

    @field_validator("kind")
    @classmethod
    def _a_kind(cls, value: str) -> str:
        try:
            return check_kind(value)
        except InputError as error:
            raise ValueError(str(error)) from None

    @field_validator("api_base")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        kind = str(info.data.get("kind"))
        base = value or (PROVIDER_KINDS[kind].api_base if kind in PROVIDER_KINDS else "")
        if not base:
            example = api_base_example(kind)
            like = f": {example}" if example else ""
            raise ValueError(f"is required for a provider of kind {kind!r}{like}")
        return base

    @field_validator("more_api_key_envs")
    @classmethod
    def _after_a_first(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and not info.data.get("api_key_env"):
            raise ValueError("needs `api_key_env`, which holds the first key")
        return value


class JudgeEntry(BaseModel):
    model_config = _STRICT
    target: str = Field(description="provider/model")
    # Parameters of the judge's requests, such as temperature.
    parameters: dict[str, object] = {}
    max_calls: int = Field(10_000, ge=1)  # maximum calls per run of the suite
    # Maximum cost per run of the suite; null for no limit.
    max_cost_usd: float | None = Field(None, gt=0)
    # Maximum calls until an answer of the judge can be parsed.
    attempts: int = Field(3, ge=1, le=10)
    max_output_tokens: int = 512  # limit of one answer
    timeout_s: float = 120.0  # limit for one answer
    references: str | None = Field(None, description="data file of answers with human scores")
    min_agreement: float = Field(
        0.6,
        ge=0,
        le=1,
        description="minimum of Cohen's kappa",
    )
    # The number of equal bands of scores by which Swapgate compares the judge with people.
    levels: int = Field(2, ge=2, le=10)
    recheck_s: float = Field(86_400.0, ge=0)  # how long a measured agreement is valid


# Reports show these names, so they must not contain markup.
GROUP_FIELD: Final = r"^[\w .-]{0,64}$"


@dataclass(frozen=True, kw_only=True)
class SuiteEntry(SuiteFields):
    path: str | None = None  # JSONL or CSV file of the items; instead of `task`
    judge: JudgeEntry | None = None  # the model that scores, for judged scorers
    cluster: Annotated[str, Field(pattern=GROUP_FIELD)] = ""
    slices: Annotated[
        tuple[Annotated[str, Field(min_length=1, pattern=GROUP_FIELD)], ...],
        Field(max_length=5),
    ] = ()


class CodeEntry(BaseModel):
    """Settings of the scorer `code`, which runs code that models write."""

    model_config = _STRICT
    uncontained: bool = Field(
        default=False,
        description="run code even without a sandbox; scorer names then end in `+uncontained`",
    )


class PolicyEntry(BaseModel):
    model_config = _STRICT
    # approved: a person must approve a passed candidate before its canary.
    promotion: PromotionMode = PromotionMode.AUTOMATIC
    # How long a passed proposal waits for a person before it expires.
    approval_ttl_s: float = Policy().approval_ttl_s
    self_approval: bool = False  # whether the proposer may approve
    # Whether a swap must name its change request.
    change_reference: ChangeReferenceRule = ChangeReferenceRule.OPTIONAL
    gate: GatePolicy = GatePolicy()  # thresholds of the evals
    canary: CanaryPolicy = CanaryPolicy()  # thresholds of the canary

    @field_validator("gate")
    @classmethod
    def _about_these_items(cls, gate: GatePolicy) -> GatePolicy:
        if gate.population is ClaimPopulation.THESE and gate.epochs == 1:
            raise ValueError(
                "`population: these` needs `epochs` of 2 or more: one answer to an item does "
                "not show how much answers vary"
            )
        return gate


class CatalogueItem(BaseModel):
    """Corrects the catalogue for one model; omitted fields keep the catalogue's value."""

    model_config = _STRICT
    price: Price | None = None  # token prices
    context_window: int | None = Field(None, description="tokens of input and output together")
    capabilities: dict[str, bool] = Field({}, description=f"values of {', '.join(ABILITIES)}")
    end_date: date | None = Field(
        None,
        description="the day on which the provider may remove the model",
    )
    family: str | None = Field(
        None, description="models of one family are versions of each other"
    )

    @field_validator("capabilities")
    @classmethod
    def _known(cls, value: dict[str, bool]) -> dict[str, bool]:
        for name in value:
            if name not in ABILITIES:
                raise ValueError(f"{name!r} is unknown: use one of {', '.join(ABILITIES)}")
        return value


class FileConfig(BaseModel):
    """Describes Swapgate's configuration file."""

    model_config = _STRICT
    database_url: str = Field("", description="SQLAlchemy URL; if empty, SQLite in `home`")
    home: str = Field(".swapgate", description="folder for state, beside this file")
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
    policies: dict[str, PolicyEntry] = {}  # thresholds of gate and canary, by name
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
    catalogue: dict[str, CatalogueItem] = Field(
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
