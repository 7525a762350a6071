"""Adds, changes, lists and removes providers while routers serve, with audit events. Checks
whether providers work (`/check`), and stores the results.

A check costs one or two tokens, and does not measure a model's quality.
`harness.providers.calls.probe` judges the answers. `credentials` stores keys, and `targets`
records a move to another address.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from harness.frame.configuration.setting import settings_of
from harness.frame.configuration.setting_values import check_settings
from harness.frame.errors import ConfigError, Conflict, InputError, NotFound
from harness.frame.people.access import Actor, Role
from harness.frame.plain_data import CamelCase
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.frame.suggestions import did_you_mean
from harness.providers.api_base_rules import api_base_example
from harness.providers.calls import own_server, probe
from harness.providers.calls.probe import (
    ProbeStatus,
    ProviderCheck,
    models_path,
)
from harness.providers.context import ProvidersContext
from harness.providers.credential import lacks_key
from harness.providers.kinds import (
    CUSTOM_KIND,
    PROVIDER_KINDS,
    OwnServer,
    ProviderGroup,
    check_kind,
    check_provider_name,
)
from harness.providers.models.capabilities import Capabilities
from harness.providers.ports import ProviderProbe
from harness.providers.records import Credentials, ProviderChecks, Providers, Targets
from harness.providers.registry import credentials, provider_secrets, targets
from harness.providers.registry.credentials import CredentialChange
from harness.providers.registry.probed_ends import store_probed_ends
from harness.providers.registry.targets import ProviderChange, change_of_provider
from harness.providers.target import JsonObject, Price, Provider, ProviderSettings, Target
from harness.providers.target_price import TargetPrice

AT_ONCE: Final = 8
LIST_TIMEOUT_S: Final = 5.0
CHAT_TIMEOUT_S: Final = 15.0
SERVER_TIMEOUT_S: Final = 2.0  # for each endpoint of a server of your own
# How long Swapproof reuses a stored check, because each check costs one or two tokens.
REUSED_FOR: Final = timedelta(minutes=1)
# How long a result counts as evidence of a provider's health.
EVIDENCE_FOR: Final = timedelta(days=1)


@dataclass(frozen=True)
class SelfTest:
    """The results of checking all providers."""

    ok: bool  # no finding of any provider failed
    at: datetime
    providers: Sequence[ProviderCheck]


def load_last_check(ctx: ProvidersContext) -> SelfTest:
    """Returns the stored results if all are younger than a minute, else checks again."""
    with ctx.store.read() as tx:
        names = Providers(tx).all().keys()
        checks = ProviderChecks(tx).all()
    fresh = [check for check in checks if ctx.clock.now() - check.at < REUSED_FOR]
    return _build_self_test(ctx, fresh) if len(fresh) == len(names) else run_check(ctx)


def list_recent_checks(ctx: ProvidersContext) -> Mapping[str, ProviderCheck]:
    """Returns the last day's checks, by provider. Omits a failure if the provider got a new key
    after it.
    """
    with ctx.store.read() as tx:
        checks = ProviderChecks(tx).all()
        keys = Credentials(tx).all()
    now = ctx.clock.now()

    def is_current(check: ProviderCheck) -> bool:
        changed_at = (key.updated_at for key in keys if key.provider == check.provider)
        return check.ok or all(check.at >= at for at in changed_at)

    return {
        check.provider: check
        for check in checks
        if now - check.at < EVIDENCE_FOR and is_current(check)
    }


def load_checks(ctx: ProvidersContext) -> Mapping[str, ProviderCheck]:
    """Returns the newest stored check of each provider, of any age."""
    with ctx.store.read() as tx:
        return {check.provider: check for check in ProviderChecks(tx).all()}


def check_provider(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
) -> ProviderCheck:
    """Checks one provider now. Takes at most 24 s. Raises NotFound, NotAllowed."""
    actor.require(Role.PROPOSER)
    with ctx.store.read() as tx:
        provider = targets.require_provider(tx, name)
    return _check_all(ctx, [provider])[0]


def run_check(ctx: ProvidersContext) -> SelfTest:
    """Checks every provider now. Takes at most 24 s for every eight providers."""
    with ctx.store.read() as tx:
        providers = list(Providers(tx).all().values())
    return _build_self_test(ctx, _check_all(ctx, providers))


def _check_all(ctx: ProvidersContext, providers: Sequence[Provider]) -> Sequence[ProviderCheck]:
    """Checks providers in parallel, and stores the results."""
    with ctx.store.read() as tx:
        routed = ctx.uses.routed_targets(tx).values()
        targets_by_id = Targets(tx).all()
    routed_ids = {target.id for targets_ in routed for target in targets_}

    def check_with_target(provider: Provider) -> ProviderCheck:
        targets_of_provider = [
            target for target in targets_by_id.values() if target.provider == provider.name
        ]
        # Prefers a target that serves a route.
        targets_of_provider.sort(key=lambda target: (target.id not in routed_ids, target.name))
        routed_models = {
            target.model for target in targets_of_provider if target.id in routed_ids
        }
        return _check_one(
            ctx,
            provider,
            targets_of_provider[0] if targets_of_provider else None,
            routed_models,
        )

    with ThreadPoolExecutor(AT_ONCE, "check") as pool:
        checks = list(pool.map(check_with_target, providers))
    with ctx.store.write() as tx:
        ProviderChecks(tx).keep(checks)
    return checks


def _build_self_test(ctx: ProvidersContext, checks: Sequence[ProviderCheck]) -> SelfTest:
    at = max((check.at for check in checks), default=ctx.clock.now())
    return SelfTest(all(check.ok for check in checks), at, checks)


def _check_one(
    ctx: ProvidersContext,
    provider: Provider,
    target: Target | None,
    routed_models: Collection[str],
) -> ProviderCheck:
    """Checks one provider: its list of models, a small chat, and the health of a server of your
    own.

    Args:
        target: the target to call; None if the provider has no target.
        routed_models: the provider's models that routes use.

    Raises ConfigError in a process that calls no provider.
    """
    if ctx.probe is None:
        raise ConfigError("this process does not call providers")
    provider = provider_secrets.decrypt_headers(provider, ctx.cipher)
    keys = provider_secrets.keys_of_provider(ctx, provider)
    if lacks_key(provider, keys):
        return _build_check(ctx, provider, target, [probe.missing_key_finding(provider)])
    secret = keys[0].secret if keys else ""
    models = ctx.probe.ask(provider, secret, models_path(provider.kind), None, LIST_TIMEOUT_S)
    chat = None
    if (
        target is not None
        and models.status is not None
        and (request := probe.streamed_probe_request(provider, target)) is not None
    ):
        path, body = request
        chat = ctx.probe.ask(provider, secret, path, body, CHAT_TIMEOUT_S)
        store_probed_ends(ctx, [(target, chat)])
        if chat.status == 200 and not body.get("stream"):
            chat = replace(chat, first_s=chat.seconds)
    findings = list(probe.probe_findings(provider, target, models, chat, routed_models))
    if models.status is not None and (server := own_server.own_server(provider)) is not None:
        replies = _ask_own_server(ctx.probe, provider, secret, server, target)
        findings += own_server.server_findings(provider, target, models, replies)
    return _build_check(ctx, provider, target, findings)


def _ask_own_server(
    probe: ProviderProbe,
    provider: Provider,
    secret: str,
    server: OwnServer,
    target: Target | None,
) -> own_server.ServerReplies:
    """Asks a server of your own for its health and its context window."""
    root = own_server.at_server_root(provider)
    about = None
    health = probe.ask(root, secret, server.health, None, SERVER_TIMEOUT_S)
    if server.about and target is not None and health.status is not None:
        about = probe.ask(root, secret, server.about, None, SERVER_TIMEOUT_S)
    return own_server.ServerReplies(server, health, about)


def _build_check(
    ctx: ProvidersContext,
    provider: Provider,
    target: Target | None,
    findings: Sequence[probe.ProbeFinding],
) -> ProviderCheck:
    return ProviderCheck(
        provider=provider.name,
        kind=provider.kind,
        target=target.name if target else None,
        ok=all(finding.status is not ProbeStatus.FAIL for finding in findings),
        findings=tuple(findings),
        at=ctx.clock.now(),
    )


@dataclass(frozen=True, slots=True)
class RegisteredTarget:
    """The result of `register_with_provider`."""

    target: Target
    provider: Provider
    added: bool  # whether the provider was added
    needs_key: bool  # whether the provider's kind needs a key for every request


def register_with_provider(
    ctx: ProvidersContext,
    actor: Actor,
    seed: Target,
    *,
    api_base: str = "",
) -> RegisteredTarget:
    """Registers a target, and its provider if that is missing and named after its kind.

    Raises as `register_provider`.
    """
    provider, added = register_provider(ctx, actor, seed.provider, api_base=api_base)
    kind = PROVIDER_KINDS.get(provider.kind)
    return RegisteredTarget(
        targets.add_target(ctx, actor, seed),
        provider,
        added=added,
        needs_key=kind is not None and kind.needs_key,
    )


def register_provider(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    *,
    api_base: str = "",
) -> tuple[Provider, bool]:
    """Returns a provider, and whether it was missing and is now registered by its kind.

    Args:
        api_base: the new provider's address; empty for its kind's.

    Raises Conflict if the provider exists at another address.
    Raises NotFound and InputError as `default_provider`.
    Raises NotAllowed if the provider may see a data class and its address is not the kind's.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    existing = providers.get(name)
    if existing is not None and api_base and api_base != existing.api_base:
        raise Conflict(
            f"provider {existing.name} is configured at {existing.api_base}: "
            f"`swapproof provider set {existing.name} --api-base {api_base}` changes that"
        )
    if existing is not None:
        return existing, False
    provider = default_provider(name, providers, api_base=api_base)
    usual_address = kind.api_base if (kind := PROVIDER_KINDS.get(name)) else ""
    targets.check_address(ctx, provider.name, usual_address, provider.api_base)
    targets.put_provider(ctx, actor, provider)
    return provider, True


def default_provider(
    name: str,
    configured: Iterable[str] = (),
    *,
    api_base: str = "",
) -> Provider:
    """Builds a provider with the usual values of its kind; stores nothing.

    A name without a kind of that name becomes a `custom` provider at `api_base`. known:
    configured names, for the hint.
    Raises NotFound without a kind and an address.
    Raises InputError for a kind that needs a sign-in or an address, and for an invalid address.
    """
    check_provider_name(name)
    kind = PROVIDER_KINDS.get(name)
    if kind is None and not api_base:
        hint = did_you_mean(name, [*configured, *PROVIDER_KINDS], otherwise=".")
        raise NotFound(
            f"there is no provider {name!r}, and no kind of that name{hint} Add it under "
            "`providers:` in swapproof.yaml, or give --api-base of an OpenAI-compatible server"
        )
    if kind is not None and kind.group is ProviderGroup.OAUTH:
        raise InputError(
            f"{name} needs a person's account, who signs in first: "
            f"`swapproof provider key login {name}`"
        )
    address = api_base or (kind.api_base if kind else "")
    if not address:
        example = api_base_example(name) or "URL"
        raise InputError(
            f"a provider of kind {name!r} has no usual address: give --api-base {example}"
        )
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{address!r} is not an http or https address")
    key_env = kind.key_env if kind else ""
    return Provider(name, kind.name if kind else CUSTOM_KIND, address, key_env or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSummary(CamelCase, ProviderSettings):
    """A provider as people see it, with its uses and without secrets."""

    group: ProviderGroup
    more_api_key_envs: Sequence[str]
    extra_headers: Sequence[str]  # their names
    extra_body: JsonObject
    prices: Mapping[str, Price]
    models: Mapping[str, Capabilities]
    routes: Sequence[str]  # routes that use it in any role
    # When it moved to its present address; None if it never moved.
    answers_since: datetime | None = None
    # Filled only after a change that moved it: the uses that need new proof.
    outdated: Sequence[str] = ()


def list_providers(ctx: ProvidersContext) -> Sequence[ProviderSummary]:
    """Lists the providers, each with the routes that use it. Shows only names of headers."""
    with ctx.store.read() as tx:
        routes = targets.routes_by_provider(ctx, tx)
        known = Providers(tx).all().values()
        return [_summarize(provider, routes.get(provider.name, [])) for provider in known]


def get_provider(ctx: ProvidersContext, name: str) -> ProviderSummary:
    """Describes a configured provider. Raises NotFound."""
    with ctx.store.read() as tx:
        provider = targets.require_provider(tx, name)
        return _summarize(provider, targets.routes_using(ctx, tx, name))


def change_provider(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    change: ProviderChange,
    *,
    create: bool | None = None,
) -> ProviderSummary:
    """Adds a provider, or changes it.

    Args:
        create: True raises Conflict for an existing provider, False raises NotFound for an
            unknown provider, None allows both.

    Needs an admin. Also raises the errors of `targets.change_of_provider` and
    `targets.put_provider`.
    """
    actor.require(Role.ADMIN)
    with ctx.store.read() as tx:
        existing = Providers(tx).all().get(name)
        if create is False:
            targets.require_provider(tx, name)
    if create and existing is not None:
        raise Conflict(f"there is a provider {name!r} already: `swapproof provider set {name}`")
    changed = change_of_provider(ctx, existing or _build_provider(name, change.kind), change)
    targets.put_provider(ctx, actor, changed, change.reason)
    with ctx.store.read() as tx:
        stored = targets.require_provider(tx, name)
        moved = existing is not None and stored.moved != existing.moved
        outdated = ctx.uses.outdated_work(tx, name) if moved else ()
        routes = targets.routes_using(ctx, tx, name)
        return replace(_summarize(stored, routes), outdated=outdated)


def set_price(
    ctx: ProvidersContext,
    actor: Actor,
    model: str,
    input_usd_per_mtok: float,
    output_usd_per_mtok: float,
    *,
    cached_input_usd_per_mtok: float | None = None,
) -> TargetPrice:
    """Sets the price of a model at its provider, in US dollars per million tokens. Every router
    uses it within 2 s.

    Args:
        model: `provider/model`, or a target's id.
        cached_input_usd_per_mtok: None for the plain input price.

    Raises NotFound for an unknown provider, InputError for a price outside its range. Needs an
    admin.
    """
    actor.require(Role.ADMIN)
    price = Price(input_usd_per_mtok, output_usd_per_mtok, cached_input_usd_per_mtok)
    check_settings(price)
    with ctx.store.write() as tx:
        target = targets.find_known_target(tx, model) or Target.from_name(model)
        targets.store_price(tx, actor, target, price)
        return targets.load_price(ctx, tx, target)


def _build_provider(name: str, kind: str | None) -> Provider:
    check_provider_name(name)
    kind_name = kind or name
    provider_kind = PROVIDER_KINDS[check_kind(kind_name)]
    return Provider(name, kind_name, provider_kind.api_base, provider_kind.key_env or None)


def remove_provider(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
) -> None:
    """Removes a provider with its keys; routers notice within two seconds. Its targets stay
    registered. Needs an admin. Raises NotFound, and Conflict with the provider's uses.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        targets.require_provider(tx, name)
        if needs := list(_blocking_uses(ctx, tx, name)):
            raise Conflict(f"provider {name!r} is used by {', '.join(needs)}. End these first")
        credentials.remove_stored_keys(tx, actor, name)
        Providers(tx).remove(name)
        AuditLog(tx).append(actor, "provider.remove", f"provider {name}", {})


def _blocking_uses(
    ctx: ProvidersContext,
    tx: Transaction,
    name: str,
) -> Iterable[str]:
    """Yields the uses that prevent a removal, for people: routes, proposals, shadows and
    judges.
    """
    yield from (f"route {route}" for route in targets.routes_using(ctx, tx, name))
    yield from ctx.uses.open_work(tx, name)
    yield from (
        f"judge of suite {suite}"
        for suite, judge in ctx.judges.items()
        if judge.provider == name
    )


def _summarize(provider: Provider, routes: Sequence[str]) -> ProviderSummary:
    """Summarises a provider.

    Args:
        routes: names of the routes that use it.
    """
    return ProviderSummary(
        name=provider.name,
        kind=provider.kind,
        group=PROVIDER_KINDS[provider.kind].group,
        **{name: getattr(provider, name) for name in settings_of(ProviderSettings)},
        more_api_key_envs=provider.more_api_key_envs,
        extra_headers=provider.header_names,
        extra_body=provider.extra_body,
        prices=provider.prices,
        models=provider.models,
        answers_since=provider.moved.at if provider.moved else None,
        routes=routes,
    )


def add_provider(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    change: CredentialChange,
) -> ProviderCheck | None:
    """Adds a provider and its key, then checks it. The provider stays if the check fails.

    Raises Conflict for a known name, and as `put_credential`. Returns None in a process that
    calls no provider.
    """
    actor.require(Role.ADMIN)
    with ctx.store.read() as tx:
        if name in Providers(tx).all():
            raise Conflict(f"there is a provider {name!r} already: choose another name")
    return replace_key(ctx, actor, name, change)


def replace_key(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    change: CredentialChange,
) -> ProviderCheck | None:
    """Sets a provider's key, and checks the provider with it. Raises as `put_credential`."""
    credentials.put_credential(ctx, actor, name, change)
    return check_added(ctx, actor, name)


def check_added(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
) -> ProviderCheck | None:
    """Checks a new or changed provider; None in a process that calls no provider."""
    return None if ctx.probe is None else check_provider(ctx, actor, name)
