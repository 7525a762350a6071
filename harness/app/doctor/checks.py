"""The checks of `swapproof doctor`: findings, each with the next step.

A check repairs nothing. A fault of the installation becomes a finding, not an exception. The
command line prints the findings and sets the exit code.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from harness.app import database, secret_files, seed
from harness.app.alert_sinks import ConfiguredSinks
from harness.app.configuration import configuration
from harness.app.configuration.model import Settings
from harness.app.database import without_password
from harness.app.processes import answers_http
from harness.evals.settings import SuiteSettings
from harness.frame import package_data
from harness.frame.alerts.alert import ALERT_RULES, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.cron import check_cron
from harness.frame.errors import (
    DatabaseUnusable,
    InputError,
    NotAllowed,
    StoreUnavailable,
    SwapproofError,
)
from harness.frame.pagination import PageRequest
from harness.frame.runtime.tcp_ports import is_free, port_holder
from harness.frame.suggestions import did_you_mean
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import fallback_chain, route_rules
from harness.proposals.recomputation import describe_other_rules, list_other_rule_proposals
from harness.providers.calls.probe import (
    ProbeFinding,
    ProbeStatus,
    ProbeSubject,
)
from harness.providers.kinds import (
    CUSTOM_KIND,
    PROVIDER_KINDS,
    ProviderGroup,
    find_kind_at,
)
from harness.providers.records import Providers, Targets
from harness.providers.registry import provider_secrets, registered_providers
from harness.providers.target import Provider
from harness.providers.target_price import advise_price, list_unpriced
from harness.routing.control import data_class_checks, freezes, routes, vector_checks
from harness.routing.table import FIRST_ROUTE_STEP

SQLITE: Final = "sqlite:///"
_INIT: Final = "run `swapproof init`"
# Only problems of these subjects fail a provider; problems of other subjects are warnings.
_PROVIDER_SUBJECTS: Final = (ProbeSubject.REACHABLE, ProbeSubject.KEY)


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """The result of a check. fail: a part does not work. warn: the part works, but a person
    should change something.
    """

    subject: str
    status: Literal["ok", "warn", "fail"]
    found: str
    next_step: str = ""  # empty if there is nothing to do


Findings = Iterator[DoctorFinding]


def run_checks(
    read_settings: Callable[[], Settings],
    open_context: Callable[[], Context],
) -> Findings:
    """Yields the findings of each check. Skips checks that cannot run. An error of
    `read_settings` or `open_context` becomes a finding.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    yield DoctorFinding("python", "ok", version)
    try:
        settings = read_settings()
    except SwapproofError as error:
        yield DoctorFinding("configuration", "fail", str(error), "fix the file")
        return
    yield _check_configuration(settings)
    yield _check_home(settings)
    context, findings = _open_database(settings, open_context)
    yield from findings
    for check in _CHECKS:
        yield from check(settings, context)
    if context is not None:
        for database_check in _DATABASE_CHECKS:
            yield from database_check(settings, context)


def _check_alert_sinks(settings: Settings, _: Context | None) -> Findings:
    sinks = ConfiguredSinks(settings.alerts, os.environ)
    if not sinks.names():
        next_step = "add a sink under `alerts.sinks`, then run `swapproof alert test`"
        yield DoctorFinding("alert sinks", "warn", "none: no person gets an alert", next_step)
    for name in sinks.names():
        subject = f"alert sink {name}"
        if missing := sinks.find_missing_secret(name):
            yield DoctorFinding(subject, "warn", missing, "set it where the control plane runs")
        else:
            yield DoctorFinding(subject, "ok", "its secrets are set")


def _check_configuration(settings: Settings) -> DoctorFinding:
    if settings.source is None:
        found = "only the shipped defaults: no swapproof.yaml here"
        return DoctorFinding("configuration", "warn", found, _INIT)
    return DoctorFinding("configuration", "ok", str(settings.source))


def _check_home(settings: Settings) -> DoctorFinding:
    if not settings.home.is_dir():
        return DoctorFinding("home", "fail", f"{settings.home} is missing", _INIT)
    try:
        secret_files.writable_home(settings)
    except SwapproofError as error:
        return DoctorFinding("home", "fail", str(error), "make it writable, or set `home:`")
    return DoctorFinding("home", "ok", f"{settings.home} is writable")


def _open_database(
    settings: Settings, open_context: Callable[[], Context]
) -> tuple[Context | None, list[DoctorFinding]]:
    """Opens the database and checks it. Returns None instead of the context if the database
    cannot be used, so that the caller skips the checks that need it.
    """
    file = Path(settings.database_url.removeprefix(SQLITE))
    if settings.database_url.startswith(SQLITE) and not file.exists():
        return None, [DoctorFinding("database", "fail", f"{file} is missing", _INIT)]
    findings: list[DoctorFinding] = []
    try:
        findings = [_check_schema(settings), *_check_roles(settings)]
        context = open_context()
        return context, [
            *findings,
            _check_audit_log(context),
            _check_signatures(context),
        ]
    except SwapproofError as error:
        return None, [*findings, *_describe_unusable(error, answers=bool(findings))]


def _describe_unusable(error: SwapproofError, *, answers: bool) -> Findings:
    """Yields the findings about a database that cannot be read.

    Args:
        answers: whether an earlier check reached the database.
    """
    message = str(error)
    match error:
        case DatabaseUnusable() if not answers:
            found, _, step = message.rpartition(": ")
            yield DoctorFinding("database", "fail", found, step)
        case _ if not answers:
            yield DoctorFinding("database", "fail", message, "start it, or fix `database_url`")
        case StoreUnavailable():
            return
        case NotAllowed():
            step = "run it without a management key, or with another key"
            yield DoctorFinding("management key", "fail", message, step)
        case _:
            yield DoctorFinding("secret", "fail", message, _INIT)


def _check_schema(settings: Settings) -> DoctorFinding:
    state = database.schema_state(settings)
    url = without_password(settings.database_url)
    if state.differences:
        found = (
            f"{url} is at revision {state.found}, but needs {state.needed}: "
            f"{len(state.differences)} differences, the first: {state.differences[0]}"
        )
        step = "run `swapproof db check`, then `swapproof db upgrade`"
        return DoctorFinding("database", "fail", found, step)
    return DoctorFinding("database", "ok", f"{url}, at the newest revision")


def _check_roles(settings: Settings) -> list[DoctorFinding]:
    if settings.database_url.startswith(SQLITE):
        return []
    role = database.find_owning_role(settings)
    if role is None:
        found = "the role runs Swapproof, and does not own the tables"
        return [DoctorFinding("database role", "ok", found)]
    found = f"the role {role} runs Swapproof and owns its tables: it could drop the triggers"
    step = "run Swapproof with a second role: `swapproof db grant ROLE`"
    return [DoctorFinding("database role", "warn", found, step)]


def _check_audit_log(context: Context) -> DoctorFinding:
    broken = queries.find_audit_break(context)
    if broken is not None:
        found = f"broken at event {broken}: somebody changed this event or an earlier event"
        return DoctorFinding(
            "audit log",
            "fail",
            found,
            "compare with a backup; see `audit tail`",
        )
    events = queries.list_audit_events(context, PageRequest(1)).total
    return DoctorFinding("audit log", "ok", f"whole, {events} events")


def _check_signatures(context: Context) -> DoctorFinding:
    faults = context.store.signature_faults()
    if not faults:
        return DoctorFinding("signatures", "ok", "all signatures are valid")
    found = f"{len(faults)} rows do not verify, the first: {faults[0].name}: {faults[0].why}"
    return DoctorFinding("signatures", "fail", found, "`swapproof db check` lists all")


def _check_schedules(settings: Settings, context: Context | None) -> Findings:
    """Reports the faulty cron expressions of the file, and of stored routes."""
    shipped = package_data.path("config/default.yaml")
    faults = configuration.list_schedule_faults(settings, os.environ, defaults=shipped)
    for fault in faults:
        yield DoctorFinding("schedule", "fail", fault, "correct the cron expression")
    if context is None:
        return
    for name, route in sorted(routes.load_table(context).routes.items()):
        try:
            if route.settings.candidates is not None:
                check_cron(route.settings.candidates.every)
        except InputError as error:
            step = f"`swapproof route settings {name} --every CRON`"
            yield DoctorFinding(f"schedule of route {name}", "fail", str(error), step)


def _check_suites(settings: Settings, context: Context | None) -> Findings:
    for name, suite in settings.suites.items():
        subject = f"suite {name}"
        if suite.path is not None and not suite.path.is_file():
            step = f"restore the file, or fix suites.{name}.path"
            yield DoctorFinding(subject, "fail", f"{suite.path} is missing", step)
        elif context is not None:
            try:
                pin = context.suites.pin(name)
            except SwapproofError as error:
                yield DoctorFinding(subject, "fail", str(error), "fix the file")
                continue
            yield DoctorFinding(subject, "ok", f"{pin.items} items, pin {pin.digest[:12]}")
            if dependence := context.suites.describe_dependence(name):
                yield DoctorFinding(f"clusters of suite {name}", "warn", dependence)
            if sample := context.suites.describe_sample(name):
                yield DoctorFinding(f"sample of suite {name}", "ok", sample)
            if suite.scorer == "code":
                yield _check_code_sandbox(suite)


def _check_judges(settings: Settings, context: Context | None) -> Findings:
    providers = dict(settings.providers)
    if context is not None:
        with context.store.read() as tx:
            providers |= Providers(tx).all()  # the database overrides the file
    for name, suite in settings.suites.items():
        if suite.judge is None:
            continue
        subject = f"judge of suite {name}"
        target = suite.judge.target
        provider = providers.get(target.provider)
        if provider is None:
            found = f"there is no provider {target.provider!r} for {target.name}"
            yield DoctorFinding(subject, "fail", found, "add it under `providers`")
        elif suite.judge.max_cost_usd is not None and target.model not in provider.prices:
            found = f"max_cost_usd is set, but the price of {target.name} is unknown"
            yield DoctorFinding(subject, "fail", found, advise_price(target.name))
        else:
            checked = "checked against references" if suite.judge.references else "not checked"
            yield DoctorFinding(subject, "ok", f"{target.name}, {checked}")


def _check_code_sandbox(suite: SuiteSettings) -> DoctorFinding:
    subject = f"code of suite {suite.name}"
    if suite.code_uncontained:
        found = "runs UNCONTAINED on this machine, because code.uncontained is true"
        return DoctorFinding(subject, "warn", found, "score such suites where Docker runs")
    if shutil.which("docker") is None:
        step = "install Docker, or accept the risk with `code.uncontained: true`"
        return DoctorFinding(subject, "fail", "needs Docker, which is not on PATH", step)
    return DoctorFinding(subject, "ok", "runs in a Docker container for each answer")


def _check_providers(_: Settings, context: Context) -> Findings:
    """Calls every provider. Only a fault of the address or the key fails the provider."""
    checked_providers = registered_providers.run_check(context).providers
    if not checked_providers:
        yield DoctorFinding("providers", "warn", "none is configured", FIRST_ROUTE_STEP)
    for provider in checked_providers:
        provider_findings = [
            finding for finding in provider.findings if finding.subject in _PROVIDER_SUBJECTS
        ]
        worst = min(provider_findings, key=lambda finding: finding.status is ProbeStatus.OK)
        yield _convert_finding(f"provider {provider.provider}", worst)
        for finding in provider.findings:
            if (
                finding.subject not in _PROVIDER_SUBJECTS
                and finding.status != ProbeStatus.UNKNOWN
            ):
                yield _convert_finding(f"{finding.subject} of {provider.provider}", finding)


def _check_kinds(settings: Settings, context: Context) -> Findings:
    """Warns of a provider whose kind hides its prices, limits and abilities."""
    with context.store.read() as tx:
        providers = Providers(tx).all().values()
    for provider in providers:
        kind = find_kind_at(provider.api_base) if provider.kind == CUSTOM_KIND else ""
        if not kind:
            continue
        host = urlsplit(provider.api_base).hostname
        change = f'`swapproof provider set {provider.name} --kind {kind} --reason "its kind"`'
        in_file = f"providers.{provider.name}.kind: {kind}"
        first = f"set `{in_file}`, then run " if provider.name in settings.providers else "run "
        yield DoctorFinding(
            f"kind of {provider.name}",
            "warn",
            f"{host} as kind {provider.kind}: its models' prices and limits stay unknown",
            f"use kind {kind}: {first}{change}",
        )


def _check_prices(_: Settings, context: Context) -> Findings:
    """Warns of models of routes without a price. Omits the simulator and servers of your own:
    their tokens cost nothing.
    """
    used_ids = {
        id_ for route in routes.load_table(context).routes.values() for id_ in route.targets
    }
    with context.store.read() as tx:
        providers = Providers(tx).all()
        used_targets = [target for id_, target in Targets(tx).all().items() if id_ in used_ids]
    names = [
        target.name
        for target in sorted(used_targets, key=lambda target: target.name)
        if target.provider in providers and _costs_money(providers[target.provider])
    ]
    for name in list_unpriced(providers, names):
        yield DoctorFinding(
            f"price of {name}",
            "warn",
            f"the price of {name} is unknown, so no guardrail watches its cost",
            advise_price(name),
        )


def _costs_money(provider: Provider) -> bool:
    kind = PROVIDER_KINDS.get(provider.kind)
    free_groups = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)
    return provider.kind == CUSTOM_KIND or kind is None or kind.group not in free_groups


def _convert_finding(subject: str, finding: ProbeFinding) -> DoctorFinding:
    if finding.status is ProbeStatus.OK:
        return DoctorFinding(subject, "ok", finding.found)
    is_failure = finding.status is ProbeStatus.FAIL and finding.subject in _PROVIDER_SUBJECTS
    return DoctorFinding(
        subject,
        "fail" if is_failure else "warn",
        finding.found,
        finding.next_step,
    )


def _check_stored_secrets(_: Settings, context: Context) -> Findings:
    """Reports stored keys and headers that no encryption key decrypts. Also reports the missing
    variables of a provider that has other keys.
    """
    with context.store.read() as tx:
        stored = provider_secrets.list_live_credentials(tx)
        providers = Providers(tx).all().values()
    for key in stored:
        try:
            context.cipher.decrypt(key.ciphertext)
        except SwapproofError as error:
            subject = f"stored key {key.name} of {key.provider}"
            step = f"`swapproof provider key set {key.provider}`"
            yield DoctorFinding(subject, "fail", str(error), step)
    for provider in providers:
        missing = [name for name in provider.key_envs if not os.environ.get(name)]
        has_other_keys = len(missing) < len(provider.key_envs)
        if missing and has_other_keys and provider.name not in {key.provider for key in stored}:
            found = f"{', '.join(missing)} not set"
            step = "set it, e.g. in .env"
            yield DoctorFinding(f"keys of {provider.name}", "warn", found, step)
        clear_provider = provider_secrets.decrypt_headers(
            provider, context.cipher
        ).extra_headers
        step = f"set the headers of {provider.name} again, or restore the encryption key"
        for name in sorted(provider.sealed_headers.keys() - clear_provider.keys()):
            subject = f"header {name} of {provider.name}"
            yield DoctorFinding(subject, "fail", "no encryption key decrypts it", step)


def _check_differences(settings: Settings, context: Context) -> Findings:
    if not routes.load_table(context).routes and not settings.routes:
        yield DoctorFinding("routes", "warn", "there is no route yet", FIRST_ROUTE_STEP)
    differences = seed.list_seed_differences(context, settings)
    for difference in differences:
        found = f"{difference.subject}: {difference.found}"
        yield DoctorFinding("file and database", "warn", found, difference.next_step)
    if not differences and settings.source is not None:
        yield DoctorFinding("file and database", "ok", "they agree")


def _check_changed_suites(_: Settings, context: Context) -> Findings:
    """Reports the suites whose pin differs from the pin that a person accepted for a route."""
    for name, route in sorted(routes.load_table(context).routes.items()):
        for route_suite in route.settings.suites:
            try:
                pin = context.suites.pin(route_suite.suite)
            except SwapproofError:
                continue  # `_check_suites` names it
            if not route_suite.digest or pin.digest == route_suite.digest:
                continue
            with context.store.read() as tx:
                changed_pieces = "; ".join(
                    route_rules.list_changed_pieces(tx, route_suite.digest, pin)
                )
            found = f"suite {route_suite.suite} changed since it was accepted: {changed_pieces}"
            step = (
                f"open proposals on it become stale: propose again; `swapproof route settings "
                f"{name} --suite {route_suite.suite}` accepts the suite as it is now"
            )
            yield DoctorFinding(f"suites of route {name}", "warn", found, step)


def _check_freezes(_: Settings, context: Context) -> Findings:
    known_routes = routes.load_table(context).routes
    for name, window in freezes.list_unknown_routes(context, known_routes):
        found = f"there is no route {name!r}, which the freeze {window} names"
        step = (
            "correct it under `freezes:` in the file, and send control and dashboard a SIGHUP"
        )
        yield DoctorFinding("freezes", "warn", found + did_you_mean(name, known_routes), step)


def _check_routes_rules(_: Settings, context: Context) -> Findings:
    for waiver in fallback_chain.list_expired_waivers(context):
        target = queries.find_target(context, waiver.target).name
        found = f"the waiver of {waiver.author} for {target} expired on {waiver.expires_at:%F}"
        command = f"swapproof route fallback remove {waiver.route} {target} --reason …"
        step = f"`{command}`, or add it again"
        yield DoctorFinding(f"route {waiver.route}", "warn", found, step)
    for violation in data_class_checks.list_violations(context):
        step = "remove the target, or fix the file"
        yield DoctorFinding("data classes", "fail", violation, step)
    for violation in vector_checks.list_mixed_vectors(context).values():
        step = "remove the other model, or declare the vectors comparable"
        yield DoctorFinding("embeddings", "fail", violation, step)
    for violation in routes.list_override_violations(context):
        step = "remove the override, or fix the file"
        yield DoctorFinding("overrides", "fail", violation, step)


def _check_gate_rules(_: Settings, context: Context) -> Findings:
    """Reports open proposals whose verdict this version's gate rules cannot recompute."""
    for outdated in list_other_rule_proposals(context):
        reason = describe_other_rules(outdated.rules)
        yield DoctorFinding(
            f"proposal {outdated.proposal.id}", "warn", reason, outdated.next_step
        )


def _check_learned_repairs(_: Settings, context: Context) -> Findings:
    """Reports the fields that routers change because a target refused them."""
    with context.store.read() as tx:
        open_alerts = Alerts(tx).list(open_only=True)
    kind = AlertKind.LEARNED_REPAIR
    for alert in open_alerts:
        if alert.kind is kind:
            yield DoctorFinding(alert.subject, "warn", alert.title, ALERT_RULES[kind].next_step)


def _check_leader(_: Settings, context: Context) -> Findings:
    leader = context.store.leader()
    found = f"{leader} leads" if leader else "no leader: run `swapproof serve control`"
    yield DoctorFinding("control process", "ok", found)


def _check_ports(settings: Settings, _: Context | None) -> Findings:
    """Reports ports that another program holds. A port on which Swapproof answers is not a
    fault.
    """
    parts = (
        ("router", settings.router, "/healthz"),
        ("control", settings.control, "/healthz"),
        *((("agents", settings.agents, "/healthz"),) if settings.agents.enabled else ()),
        ("ui", settings.ui, "/_stcore/health"),
    )
    for name, settings_of_part, path in parts:
        subject = f"port of {name}"
        place = f"{settings_of_part.host}:{settings_of_part.port}"
        if is_free(settings_of_part.host, settings_of_part.port):
            yield DoctorFinding(subject, "ok", f"{place} is free")
        elif answers_http(settings_of_part.host, settings_of_part.port, path):
            yield DoctorFinding(subject, "ok", f"{place} is served: {path} answers")
        else:
            found = f"{place} is held by {port_holder(settings_of_part.port)}"
            yield DoctorFinding(
                subject,
                "fail",
                found,
                f"stop that process, or set {name}.port",
            )


_CHECKS: Final = (
    _check_schedules,
    _check_suites,
    _check_judges,
    _check_alert_sinks,
    _check_ports,
)
_DATABASE_CHECKS: Final = (
    _check_providers,
    _check_kinds,
    _check_prices,
    _check_stored_secrets,
    _check_differences,
    _check_changed_suites,
    _check_freezes,
    _check_routes_rules,
    _check_gate_rules,
    _check_learned_repairs,
    _check_leader,
)
