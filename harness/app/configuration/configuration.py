"""Parses the configuration file, one YAML file, into frozen dataclasses.

The user's file overrides the shipped defaults; the environment overrides both. An unknown key
or a wrong value raises a ConfigError with file, line, field and the nearest known key.

The steps are: read and merge documents, check them against the schema, then check rules between
keys. This module stores and starts nothing. `harness.app.seed` creates the routes that the
database lacks, and `harness.app.reload` loads a changed file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from harness.app.configuration.model import FILE_NAME, RunQueueKind, Settings
from harness.app.configuration.operations import (
    FreezeEntry,
    build_capture_settings,
    build_freeze_window,
    find_agent_faults,
    find_oidc_faults,
    name_sink,
)
from harness.app.configuration.routing import (
    FileContext,
    build_route_seed,
    check_overrides,
    parse_target_seed,
    read_settings,
)
from harness.app.configuration.schema import (
    FileConfig,
    JudgeEntry,
    ProviderEntry,
    SuiteEntry,
    json_schema,
    parse_config,
    whole_file,
)
from harness.app.configuration.validation_errors import (
    find_ambiguous_guardrails,
    find_range_errors,
)
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.alerts.alert_record import AlertSettings, AlertSink
from harness.frame.configuration import source_locations
from harness.frame.configuration.source_locations import (
    Document,
    KeyPath,
    merge_documents,
    parse_file,
)
from harness.frame.cron import check_cron
from harness.frame.errors import ConfigError, InputError
from harness.frame.people.access import check_origin, parse_proxy_networks
from harness.frame.suggestions import find_nearest
from harness.gate.policy import Policy
from harness.gate.suite_plan import is_slice_value
from harness.proposals.judge import check_judge
from harness.providers.api_base_rules import (
    api_base_example,
    check_allowed_address,
    check_api_base,
    check_api_base_path,
)
from harness.providers.calls.guarded_http import check_headers
from harness.providers.credential import check_key_variable
from harness.providers.force import parse_file_switches
from harness.providers.kinds import PROVIDER_KINDS, check_kind, check_provider_name
from harness.providers.models.catalogue import ABILITIES, CatalogueChange, CatalogueFacts
from harness.providers.oauth import OAuthOverrides, check_oauth_url
from harness.providers.target import Provider, ProviderSettings, Target, check_extra_body
from harness.routing.freeze import FreezeWindow
from harness.routing.route_settings import check_predicate
from harness.routing.settings import RouterSettings, RouteSeed

__all__ = [
    "FILE_NAME",
    "Document",
    "json_schema",
    "list_schedule_faults",
    "load_settings",
    "read_document",
    "whole_file",
]


def load_settings(
    file: Path | None,
    environ: Mapping[str, str],
    *,
    defaults: Path,
) -> Settings:
    """Loads the settings. Raises ConfigError.

    Args:
        file: None for the shipped defaults.
        environ: its SWAPPROOF__ variables override the file.
        defaults: the shipped file, in the folder of the shipped suites.
    """
    document = read_document(file, environ, defaults=defaults)
    base = file.resolve().parent if file is not None else Path.cwd()
    return build_settings(
        document,
        base=base,
        shipped=defaults.parent,
        source=file,
    )


def list_schedule_faults(
    settings: Settings, environ: Mapping[str, str], *, defaults: Path
) -> list[str]:
    """Describes each faulty cron expression of the file, with its place.

    `load_settings` accepts a faulty expression, because it must stop only its own job, not the
    process.
    """
    document = read_document(settings.source, environ, defaults=defaults)
    cron_by_path: dict[KeyPath, str] = {
        ("suites", name, "every"): suite.every
        for name, suite in settings.suites.items()
        if suite.every
    }
    for name, route in settings.routes.items():
        if route.settings.candidates is not None:
            every = route.settings.candidates.every
            cron_by_path["routes", name, "candidates", "every"] = every
    faults = []
    for path, cron in cron_by_path.items():
        try:
            check_cron(cron)
        except InputError as error:
            faults.append(str(document.error(path, str(error))))
    return faults


def read_document(
    file: Path | None,
    environ: Mapping[str, str],
    *,
    defaults: Path,
) -> Document:
    """Reads defaults, file and environment into one document. Raises ConfigError.

    The document has the place of each value. The caller must check the values.
    """
    document = parse_file(defaults)
    if file is not None:
        document = merge_documents(document, parse_file(file))
    return merge_documents(document, source_locations.environment_document(environ))


def build_settings(
    document: Document,
    *,
    base: Path,
    shipped: Path,
    source: Path | None,
) -> Settings:
    """Builds the settings. Raises ConfigError at the first fault.

    Args:
        base: folder of relative paths.
        shipped: folder of the shipped suites.
        source: the user's file; None for the defaults.
    """
    config = parse_config(document)
    for path, message in (
        *find_range_errors(config),
        *find_ambiguous_guardrails(document.values),
        *_find_agent_faults(config),
        *_find_oidc_faults(config),
    ):
        raise document.error(path, message)
    _check_queue(config, document)
    providers = {
        name: _build_provider(name, p, document) for name, p in config.providers.items()
    }
    _check_providers(providers, config.router, document)
    file_context = FileContext(
        document,
        providers,
        {name: provider.tiers for name, provider in config.providers.items()},
        {name: frozenset(names) for name, names in config.data_classes.items()},
    )
    home = base / config.home
    policies = {
        name: Policy(name, **_read_field_values(p)) for name, p in config.policies.items()
    }
    routes = {
        name: build_route_seed(name, r, file_context) for name, r in config.routes.items()
    }
    check_overrides(routes, file_context)
    _check_judges(routes, policies, file_context)
    return Settings(
        database_url=config.database_url or f"sqlite:///{home / 'swapproof.db'}",
        home=home,
        source=source,
        router=config.router,
        control=config.control,
        ui=config.ui,
        agents=config.agents,
        providers=providers,
        suites={
            name: replace(
                _build_suite(name, entry, file_context, base, shipped),
                code_uncontained=config.code.uncontained,
            )
            for name, entry in config.suites.items()
        },
        policies=policies,
        routes=routes,
        switches=_check_switches(config.switches, document),
        spending=config.spending,
        freezes=_build_freezes(config.freezes, document),
        data_classes=file_context.data_classes,
        alerts=_check_alerts(config.alerts, document),
        eval_limits={name: provider.eval_limits for name, provider in config.providers.items()},
        capture=build_capture_settings(config.capture, document),
        catalogue=_build_catalogue(config.catalogue, document),
        oauth=_check_oauth(config.oauth, document),
    )


def _find_agent_faults(config: FileConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yields path and message of each invalid setting of agents."""
    faults = find_agent_faults(config.agents, config.router, config.control, config.suites)
    return ((("agents", *path), message) for path, message in faults)


def _find_oidc_faults(config: FileConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yields path and message of each invalid setting of single sign-on."""
    oidc = config.ui.oidc
    faults = find_oidc_faults(oidc) if oidc is not None else ()
    return ((("ui", "oidc", *path), message) for path, message in faults)


def _check_queue(config: FileConfig, document: Document) -> None:
    """Checks that a queue for several hosts has a database for several hosts. Raises
    ConfigError.
    """
    if config.control.queue is RunQueueKind.EMBEDDED:
        return
    if not (config.database_url or "").startswith("postgresql"):
        raise document.error(
            ("control", "queue"),
            f"{config.control.queue} needs PostgreSQL: set `database_url` to postgresql://…, "
            "or set `control.queue` to `embedded`",
        )


def _check_providers(
    providers: Mapping[str, Provider], router: RouterSettings, document: Document
) -> None:
    """Checks addresses, names and headers of providers and routers. Raises ConfigError."""
    allowed = router.allow_addresses
    for number, address in enumerate(allowed):
        with document.at("router", "allow_addresses", number):
            check_allowed_address(address)
    for number, proxy in enumerate(router.trusted_proxies):
        with document.at("router", "trusted_proxies", number):
            parse_proxy_networks([proxy])
    for number, origin in enumerate(router.cors.origins):
        with document.at("router", "cors", "origins", number):
            check_origin(origin)
    for name, provider in providers.items():
        with document.at("providers", name):
            check_provider_name(name)
        with document.at("providers", name, "kind"):
            check_kind(provider.kind)
        with document.at("providers", name, "api_key_env"):
            check_key_variable(provider.api_key_env)
        with document.at("providers", name, "more_api_key_envs"):
            for variable in provider.more_api_key_envs:
                check_key_variable(variable)
            if provider.more_api_key_envs and not provider.api_key_env:
                raise InputError("needs `api_key_env`, which holds the first key")
        with document.at("providers", name, "api_base"):
            if not provider.api_base:
                raise InputError(_missing_address(provider))
            check_api_base(provider.api_base, allowed)
            check_api_base_path(provider.kind, provider.api_base)
        with document.at("providers", name, "extra_body"):
            check_extra_body(provider.extra_body)
        for header, value in provider.extra_headers.items():
            with document.at("providers", name, "extra_headers", header):
                check_headers({header: value})
        with document.at("providers", name, "extra_headers"):
            check_headers(provider.extra_headers)


def _missing_address(provider: Provider) -> str:
    """Describes a missing address, with the kind that a mistyped name may mean."""
    example = api_base_example(provider.kind)
    text = f"is required for a provider of kind {provider.kind!r}"
    if example:
        return f"{text}: {example}"
    name = provider.name
    kind = name if name in PROVIDER_KINDS else find_nearest(name, PROVIDER_KINDS)
    if not kind:
        return f"{text}: the address of an OpenAI-compatible API, such as https://host/v1"
    return f"{text}. If you mean the provider {kind}, write `{kind}: {{kind: {kind}}}`"


def _check_judges(
    routes: Mapping[str, RouteSeed],
    policies: Mapping[str, Policy],
    file_context: FileContext,
) -> None:
    """Checks each policy's judge, and that the data class of each judged route allows the
    judge's provider.
    """
    document = file_context.document
    for name, policy in policies.items():
        path = ("judge",) if policy.canary.judge else ("guardrails", "judge")
        with document.at("policies", name, "canary", *path):
            check_judge(policy.canary)
    for name, route in routes.items():
        settings = route.settings
        route_policy = policies.get(route.settings.policy)
        judge = route_policy.canary.judge if route_policy else None
        provider = Target.from_name(judge.model).provider if judge else None
        allowed = file_context.data_classes.get(settings.data_class)
        if provider is not None and allowed is not None and provider not in allowed:
            raise document.error(
                ("routes", name, "data_class"),
                f"the judge of policy {settings.policy!r} is at {provider!r}, which may not "
                f"see {settings.data_class} data; allowed are "
                f"{', '.join(sorted(allowed)) or 'none'} (`data_classes:`)",
            )


def _check_alerts(alerts: AlertSettings, document: Document) -> AlertSettings:
    """Names and checks the sinks of alerts. Raises ConfigError for a faulty sink or a duplicate
    name.
    """
    sinks: dict[str, AlertSink] = {}
    for number, configured in enumerate(alerts.sinks):
        with document.at("alerts", "sinks", number):
            sink = name_sink(number + 1, configured)
            if sink.name in sinks:
                raise InputError(f"there are two sinks named {sink.name!r}")
            sinks[sink.name] = sink
    return replace(alerts, sinks=tuple(sinks.values()))


def _check_oauth(
    overrides: Mapping[str, OAuthOverrides], document: Document
) -> Mapping[str, OAuthOverrides]:
    """Checks the addresses of sign-ins, which must not send tokens in clear. Raises
    ConfigError.
    """
    for name, override in overrides.items():
        for field in ("device_url", "token_url", "poll_url", "exchange_url"):
            with document.at("oauth", name, field):
                if url := getattr(override, field):
                    check_oauth_url(url)
    return overrides


def _build_catalogue(
    items: Mapping[str, CatalogueFacts], document: Document
) -> tuple[CatalogueChange, ...]:
    """Builds the file's changes to the catalogue. Raises ConfigError for a name that is not
    KIND/MODEL, and for an unknown ability.
    """
    changes = []
    for name, item in items.items():
        kind, _, model = name.partition("/")
        with document.at("catalogue", name):
            if kind not in PROVIDER_KINDS or not model:
                kinds = ", ".join(PROVIDER_KINDS)
                raise InputError(f"write KIND/MODEL; the kinds are {kinds}")
        for ability in item.capabilities:
            if ability not in ABILITIES:
                abilities = ", ".join(ABILITIES)
                text = f"{ability!r} is unknown: use one of {abilities}"
                raise document.error(("catalogue", name, "capabilities"), text)
        changes.append(CatalogueChange(kind, model, **_read_field_values(item)))
    return tuple(changes)


def _check_switches(items: list[str], document: Document) -> tuple[str, ...]:
    """Checks the kill switches. Routers parse them again at their start, with the time of that
    start.
    """
    try:
        parse_file_switches(items, datetime.min.replace(tzinfo=UTC))
    except InputError as error:
        raise ConfigError(f"{document.place(('switches',))}: {error}") from None
    return tuple(items)


def _build_freezes(entries: list[FreezeEntry], document: Document) -> tuple[FreezeWindow, ...]:
    windows: list[FreezeWindow] = []
    for number, entry in enumerate(entries):
        with document.at("freezes", number):
            windows.append(build_freeze_window(entry))
    return tuple(windows)


def _read_field_values(record: Any) -> dict[str, Any]:
    """Returns the values of a dataclass by field."""
    return {entry.name: getattr(record, entry.name) for entry in fields(record)}


def _build_provider(name: str, entry: ProviderEntry, document: Document) -> Provider:
    """Builds a provider from its entry. Raises ConfigError."""
    # Omits tiers, because parsed routes name models. Omits eval limits, because they belong to
    # machines.
    return Provider(
        name,
        entry.kind,
        **read_settings(ProviderSettings, entry, partial(document.at, "providers", name)),
        extra_headers=entry.extra_headers,
        prices=entry.prices,
        more_api_key_envs=entry.more_api_key_envs,
        models=entry.models,
        extra_body=entry.extra_body,
    )


def _build_suite(
    name: str,
    entry: SuiteEntry,
    file_context: FileContext,
    base: Path,
    shipped: Path,
) -> SuiteSettings:
    """Builds a suite's settings: paths, task, judge and data class. Raises ConfigError."""
    values = {**vars(entry)}
    document = file_context.document
    if (entry.path is None) == (entry.task is None):
        raise document.error(("suites", name), "give either `path` or `task`")
    # Paths of shipped suites are relative to the shipped file, others to the user's file.
    if entry.path is not None:
        is_shipped = document.place(("suites", name, "path")).startswith(str(shipped))
        values["path"] = _resolve_path(entry.path, shipped.parent if is_shipped else base)
    if entry.task is not None:
        file, _, task = entry.task.partition(":")
        values["task"] = f"{_resolve_path(file, base)}{':' + task if task else ''}"
    if entry.data_class and entry.data_class not in file_context.data_classes:
        message = f"`data_classes` has no {entry.data_class!r}"
        raise document.error(("suites", name, "data_class"), message)
    if entry.judge is not None:
        with document.at("suites", name, "judge"):
            values["judge"] = judge = _build_judge(entry.judge, base)
        with document.at("suites", name, "judge", "target"):
            _check_judge_clearance(entry, judge, file_context)
    for slice_name, predicate in entry.split.items():
        with document.at("suites", name, "split", slice_name):
            _check_split(entry, slice_name, predicate)
    return SuiteSettings(name=name, **values)


def _check_split(entry: SuiteEntry, slice_name: str, predicate: str) -> None:
    """Checks a slice that may get a route of its own. Raises InputError."""
    field_, equals, value = slice_name.partition(" = ")
    if not equals or field_ not in entry.slices or not is_slice_value(value):
        raise InputError(
            f"{slice_name!r} is no slice: write 'FIELD = VALUE' with one of `slices` "
            f"({', '.join(entry.slices) or 'none'})"
        )
    check_predicate(predicate)


def _check_judge_clearance(
    entry: SuiteEntry,
    judge: JudgeSettings,
    file_context: FileContext,
) -> None:
    """Checks that the suite's data class allows the judge's provider. Raises InputError."""
    allowed = file_context.data_classes.get(entry.data_class)
    if allowed is not None and judge.target.provider not in allowed:
        raise InputError(
            f"provider {judge.target.provider!r} may not see {entry.data_class} data; "
            f"allowed are {', '.join(sorted(allowed)) or 'none'} (`data_classes:`)"
        )


def _build_judge(entry: JudgeEntry, base: Path) -> JudgeSettings:
    """Builds a suite's judge. Raises InputError for a name that is not provider/model."""
    values = {**vars(entry)}
    target = parse_target_seed(entry.target)
    del values["parameters"]
    values["target"] = Target(target.provider, target.model, entry.parameters)
    values["references"] = _resolve_path(entry.references, base) if entry.references else None
    return JudgeSettings(**values)


def _resolve_path(path: str, base: Path) -> Path:
    """Returns an absolute path.

    Args:
        base: folder of a relative path.
    """
    return Path(path).expanduser() if Path(path).expanduser().is_absolute() else base / path
