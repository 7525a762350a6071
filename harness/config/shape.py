"""The file's shape: what may stand where, and what it becomes."""

import difflib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from harness.config.places import Document, Path_
from harness.config.ranges import complaints
from harness.config.sinks import alert_sink
from harness.domain.capabilities import Capabilities
from harness.domain.errors import ConfigError, InputError
from harness.domain.keepwarm import share_bps_of
from harness.domain.policy import CanaryPolicy, GatePolicy, Policy, Promotion
from harness.domain.routing import OnContentPolicy, RouteSettings, RouteSuite, Stakes
from harness.domain.settings import (
    AlertSettings,
    AlertSink,
    ControlSettings,
    RouterSettings,
    RouteSeed,
    Settings,
    SuiteSettings,
    TargetSeed,
    UiSettings,
)
from harness.domain.switches import switches_of_file
from harness.domain.targets import DEFAULT_BASES, Price, Provider, RequestPatch

T = TypeVar("T")
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class ProviderEntry(BaseModel):
    model_config = _STRICT
    kind: str = "custom"
    api_base: str = Field(
        "", validate_default=True, description="may be left out for the kinds anthropic, openai"
    )
    api_key_env: str | None = None
    extra_headers: dict[str, str] = {}
    prices: dict[str, Price] = {}
    more_api_key_envs: tuple[str, ...] = ()
    models: dict[str, Capabilities] = {}

    @field_validator("api_base")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        kind = str(info.data.get("kind"))
        base = value or DEFAULT_BASES.get(kind)
        if not base:
            raise ValueError(f"is required for a provider of kind {kind!r}")
        return base


class TargetEntry(BaseModel):
    model_config = _STRICT
    provider: str
    model: str
    parameters: dict[str, object] = {}
    request_patch: RequestPatch = RequestPatch()


class FallbackEntry(BaseModel):
    """Give `target` (provider/model), or `provider` and `model`."""

    model_config = _STRICT
    target: str = ""
    provider: str = ""
    model: str = ""
    parameters: dict[str, object] = {}
    request_patch: RequestPatch = RequestPatch()
    capable: bool = Field(default=False, description="good enough for a route of high stakes")


class SuiteEntry(BaseModel):
    model_config = _STRICT
    path: str | None = None
    task: str | None = None
    scorer: str = "exact"
    scorer_options: dict[str, object] = {}
    title: str = ""
    version: str = "1"
    template: str = "{input}"
    system: str = ""
    input_field: str = "input"
    target_field: str = ""
    max_output_tokens: int = 512
    temperature: float = 0.0
    every: str = ""


class PolicyEntry(BaseModel):
    model_config = _STRICT
    promotion: Promotion = Promotion.AUTOMATIC
    approval_ttl_s: float = Policy().approval_ttl_s
    self_approval: bool = False
    gate: GatePolicy = GatePolicy()
    canary: CanaryPolicy = CanaryPolicy()


class RouteEntry(BaseModel):
    model_config = _STRICT
    incumbent: str | TargetEntry
    fallbacks: list[str | FallbackEntry] = []
    description: str = ""
    stakes: Stakes = Stakes.LOW
    policy: str = "default"
    suites: list[str | RouteSuite] = []
    total_timeout_s: float = RouteSettings().total_timeout_s
    on_content_policy: OnContentPolicy = OnContentPolicy.FAIL
    keep_warm: int | str = Field(
        0, description="share for each warmed target: 1%, or basis points (100)"
    )
    tools: Literal["side_effects"] | None = Field(
        None, description="side_effects: what its tools do cannot be undone"
    )
    data_class: str = ""


class SinkEntry(BaseModel):
    model_config = _STRICT
    name: str = ""
    url: str = ""
    url_env: str = ""
    webhook: str = ""
    secret_env: str = ""


class AlertsEntry(BaseModel):
    model_config = _STRICT
    sinks: list[SinkEntry] = []
    deliver_interval_s: float = AlertSettings().deliver_interval_s
    timeout_s: float = AlertSettings().timeout_s
    keep_days: float = AlertSettings().keep_days


class FileConfig(BaseModel):
    """Swapgate's configuration file."""

    model_config = _STRICT
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in `home`")
    home: str = Field(".swapgate", description="folder for state, beside this file")
    router: RouterSettings = RouterSettings()
    control: ControlSettings = ControlSettings()
    ui: UiSettings = UiSettings()
    providers: dict[str, ProviderEntry] = {}
    suites: dict[str, SuiteEntry] = {}
    policies: dict[str, PolicyEntry] = {}
    routes: dict[str, RouteEntry] = {}
    alerts: AlertsEntry = Field(AlertsEntry(), description="whom to tell, see docs/alerts.md")
    data_classes: dict[str, list[str]] = Field(
        {}, description="kinds of data, each with the providers that may see it"
    )
    switches: list[str] = Field(
        [],
        description="kill switches, read at a router's start: provider:NAME, target:ID or "
        "ROUTE=provider:NAME",
    )


def json_schema() -> dict[str, object]:
    return FileConfig.model_json_schema()


def settings(document: Document, *, base: Path, shipped: Path, source: Path | None) -> Settings:
    """The frozen settings. Relative paths count from `base`, the file's folder.

    Raises ConfigError with the place of the first fault.
    """
    try:
        config = FileConfig.model_validate(document.values)
    except ValidationError as error:
        raise _config_error(document, error) from None
    except InputError as error:
        # Single values are right, and do not go together.
        raise ConfigError(f"{document.place(('router',))}: router.{error}") from None
    for path, message in complaints(config.model_dump()):
        raise ConfigError(f"{document.place(path)}: {_dotted(path)}: {message}")
    _check_data_classes(config, document)
    home = base / config.home
    return Settings(
        database_url=config.database_url or f"sqlite:///{home / 'swapgate.db'}",
        home=home,
        source=source,
        router=config.router,
        control=config.control,
        ui=config.ui,
        providers={name: _provider(name, p) for name, p in config.providers.items()},
        suites={
            name: _suite(name, entry, document, base, shipped)
            for name, entry in config.suites.items()
        },
        policies={name: Policy(name, **_fields(p)) for name, p in config.policies.items()},
        routes={name: _route(name, r, document) for name, r in config.routes.items()},
        switches=_switches(config.switches, document),
        data_classes={name: frozenset(each) for name, each in config.data_classes.items()},
        alerts=_alerts(config.alerts, document),
    )


def _alerts(entry: AlertsEntry, document: Document) -> AlertSettings:
    sinks: list[AlertSink] = []
    for number, each in enumerate(entry.sinks):
        place = document.place(("alerts", "sinks", number))
        try:
            sink = alert_sink(number + 1, **_fields(each))
        except InputError as error:
            raise ConfigError(f"{place}: alerts.sinks.{number}: {error}") from None
        if sink.name in {known.name for known in sinks}:
            raise ConfigError(f"{place}: alerts.sinks.{number}: a second sink {sink.name!r}")
        sinks.append(sink)
    return AlertSettings(**_fields(entry) | {"sinks": tuple(sinks)})


def _check_data_classes(config: FileConfig, document: Document) -> None:
    for name, route in config.routes.items():
        if route.data_class and route.data_class not in config.data_classes:
            near = difflib.get_close_matches(route.data_class, config.data_classes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            path = ("routes", name, "data_class")
            raise ConfigError(
                f"{document.place(path)}: {_dotted(path)}: `data_classes` has no "
                f"{route.data_class!r}{hint}"
            )


def _switches(items: list[str], document: Document) -> tuple[str, ...]:
    try:
        switches_of_file(items, datetime.min.replace(tzinfo=UTC))
    except InputError as error:
        raise ConfigError(f"{document.place(('switches',))}: {error}") from None
    return tuple(items)


def _fields(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _provider(name: str, entry: ProviderEntry) -> Provider:
    return Provider(name=name, **_fields(entry))


def _suite(
    name: str, entry: SuiteEntry, document: Document, base: Path, shipped: Path
) -> SuiteSettings:
    values = _fields(entry)
    if (entry.path is None) == (entry.task is None):
        place = document.place(("suites", name))
        raise ConfigError(f"{place}: suites.{name}: give either `path` or `task`")
    # A shipped suite's data lie beside the shipped file, a user's beside the user's.
    if entry.path is not None:
        ours = document.place(("suites", name, "path")).startswith(str(shipped))
        values["path"] = _located(entry.path, shipped.parent if ours else base)
    if entry.task is not None:
        file, _, task = entry.task.partition(":")
        values["task"] = f"{_located(file, base)}{':' + task if task else ''}"
    return SuiteSettings(name=name, **values)


def _located(path: str, base: Path) -> Path:
    return Path(path).expanduser() if Path(path).expanduser().is_absolute() else base / path


def _route(name: str, entry: RouteEntry, document: Document) -> RouteSeed:
    def at(path: Path_, read: Callable[[], T]) -> T:
        try:
            return read()
        except InputError as error:
            whole = ("routes", name, *path)
            raise ConfigError(f"{document.place(whole)}: {_dotted(whole)}: {error}") from None

    fallbacks = [
        at(("fallbacks", index), partial(_target, value))
        for index, value in enumerate(entry.fallbacks)
    ]
    return RouteSeed(
        name=name,
        incumbent=at(("incumbent",), partial(_target, entry.incumbent)),
        fallbacks=tuple(fallbacks),
        settings=RouteSettings(
            description=entry.description,
            stakes=entry.stakes,
            policy=entry.policy,
            suites=tuple(RouteSuite(s) if isinstance(s, str) else s for s in entry.suites),
            total_timeout_s=entry.total_timeout_s,
            on_content_policy=entry.on_content_policy,
            keep_warm_bps=at(("keep_warm",), partial(share_bps_of, entry.keep_warm)),
            side_effects=entry.tools == "side_effects",
            capable=tuple(
                seed.target.id
                for seed, each in zip(fallbacks, entry.fallbacks, strict=True)
                if isinstance(each, FallbackEntry) and each.capable
            ),
            data_class=entry.data_class,
        ),
    )


def _target(entry: str | TargetEntry | FallbackEntry) -> TargetSeed:
    """Raises InputError."""
    if isinstance(entry, str):
        return target_seed(entry)
    provider, model = entry.provider, entry.model
    if isinstance(entry, FallbackEntry) and entry.target:
        if provider or model:
            raise InputError("give either `target`, or `provider` and `model`")
        named = target_seed(entry.target)
        provider, model = named.provider, named.model
    if not (provider.strip() and model.strip()):
        raise InputError("give `provider` and `model`, or `target: provider/model`")
    return TargetSeed(provider, model, entry.parameters, entry.request_patch)


def target_seed(name: str) -> TargetSeed:
    """`provider/model` as a target; the model may contain slashes. Raises InputError."""
    provider, slash, model = name.partition("/")
    if not (slash and provider and model):
        raise InputError(f"{name!r} is not a target: write provider/model, e.g. openai/gpt-5")
    return TargetSeed(provider, model)


def _dotted(path: Path_) -> str:
    return ".".join(str(part) for part in path)


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def _config_error(document: Document, error: ValidationError) -> ConfigError:
    faults = error.errors(include_url=False)
    # Where several shapes were tried, an unknown key says more than "not a string".
    first = next((fault for fault in faults if fault["type"] in _UNKNOWN), faults[0])
    path = tuple(p for p in first["loc"] if not _is_branch(p))
    place, unknown = document.place(path), str(path[-1]) if path else ""
    if first["type"] in _UNKNOWN:
        guess = difflib.get_close_matches(unknown, _siblings(path), n=1)
        hint = f"; did you mean {guess[0]!r}?" if guess else ""
        return ConfigError(f"{place}: unknown key {_dotted(path)!r}{hint}")
    return ConfigError(f"{place}: {_dotted(path)}: {first['msg']}")


def _is_branch(part: str | int) -> bool:
    """pydantic adds the tried type to the path of a union, e.g. `TargetEntry`, `str`."""
    return isinstance(part, str) and part in (
        "str",
        "int",
        "TargetEntry",
        "FallbackEntry",
        "RouteSuite",
    )


def _siblings(path: Path_) -> list[str]:
    """The keys that may stand where the last part of `path` stands, from the schema."""
    schema = json_schema()
    defs: Mapping[str, object] = schema.get("$defs", {})  # type: ignore[assignment]
    node: object = schema
    for part in path[:-1]:
        node = _inside(_resolved(node, defs), part, defs)
    properties = _resolved(node, defs).get("properties", {})
    return list(properties) if isinstance(properties, dict) else []


def _resolved(node: object, defs: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(node, dict):
        return {}
    if "$ref" in node:
        return _resolved(defs[str(node["$ref"]).rsplit("/", 1)[1]], defs)
    for choice in node.get("anyOf", []):
        found = _resolved(choice, defs)
        if found.get("type") in ("object", "array"):
            return found
    return node


def _inside(node: dict[str, object], part: str | int, defs: Mapping[str, object]) -> object:
    properties = node.get("properties")
    if isinstance(part, int):
        return _resolved(node.get("items", {}), defs)
    if isinstance(properties, dict) and part in properties:
        return properties[part]
    return node.get("additionalProperties", {})
