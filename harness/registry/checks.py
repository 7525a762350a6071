"""Checks whether providers work (`/check`, D5), and stores the results."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.frame.errors import ConfigError
from harness.frame.people.access import Actor, Role
from harness.providers.calls import probe
from harness.providers.calls.probe import ProbeStatus, ProviderCheck, models_path
from harness.providers.credential import lacks_key
from harness.providers.records import Credentials, ProviderChecks, Providers
from harness.providers.target import Provider, Target
from harness.registry import provider_secrets, targets
from harness.routing.context import Context
from harness.routing.records.routes import Routing

AT_ONCE: Final = 8
LIST_TIMEOUT_S: Final = 5.0
CHAT_TIMEOUT_S: Final = 15.0
# A check costs one or two tokens at each provider.
FRESH: Final = timedelta(minutes=1)
# How long a result counts as evidence of a provider's health.
KNOWN_FOR: Final = timedelta(days=1)


@dataclass(frozen=True)
class SelfTest:
    ok: bool  # no finding of any provider failed
    at: datetime
    providers: Sequence[ProviderCheck]


def load_last_check(ctx: Context) -> SelfTest:
    """Returns the stored results if all are younger than a minute, else checks again."""
    with ctx.store.read() as tx:
        names, found = Providers(tx).all().keys(), ProviderChecks(tx).all()
    fresh = [check for check in found if ctx.clock.now() - check.at < FRESH]
    return _reply_of(ctx, fresh) if len(fresh) == len(names) else run_check(ctx)


def known_check(ctx: Context) -> Mapping[str, ProviderCheck]:
    """Maps providers to checks of the last day, without failures from before a new key."""
    with ctx.store.read() as tx:
        found, stored = ProviderChecks(tx).all(), Credentials(tx).all()
    now = ctx.clock.now()

    def stands(check: ProviderCheck) -> bool:
        changed = (key.updated_at for key in stored if key.provider == check.provider)
        return check.ok or all(check.at >= at for at in changed)

    return {
        check.provider: check for check in found if now - check.at < KNOWN_FOR and stands(check)
    }


def load_checks(ctx: Context) -> Mapping[str, ProviderCheck]:
    with ctx.store.read() as tx:
        return {check.provider: check for check in ProviderChecks(tx).all()}


def check_provider(ctx: Context, actor: Actor, name: str) -> ProviderCheck:
    """Checks one provider now. Takes at most 20 s. Raises NotFound, NotAllowed."""
    actor.require(Role.PROPOSER)
    with ctx.store.read() as tx:
        provider = targets.require_provider(tx, name)
    return _ask(ctx, [provider])[0]


def run_check(ctx: Context) -> SelfTest:
    """Checks every provider now. Takes at most 20 s for every eight providers."""
    with ctx.store.read() as tx:
        providers = list(Providers(tx).all().values())
    return _reply_of(ctx, _ask(ctx, providers))


def _ask(ctx: Context, providers: Sequence[Provider]) -> Sequence[ProviderCheck]:
    with ctx.store.read() as tx:
        table, known = Routing(tx).table(), Routing(tx).targets()
    in_use = {target for route in table.routes.values() for target in route.targets}

    def checked(provider: Provider) -> ProviderCheck:
        own = [target for target in known.values() if target.provider == provider.name]
        # A target that serves a route comes first.
        own.sort(key=lambda target: (target.id not in in_use, target.name))
        used = {target.model for target in own if target.id in in_use}
        return _checked(ctx, provider, own[0] if own else None, used)

    with ThreadPoolExecutor(AT_ONCE, "check") as pool:
        found = list(pool.map(checked, providers))
    with ctx.store.write() as tx:
        ProviderChecks(tx).keep(found)
    return found


def _reply_of(ctx: Context, checks: Sequence[ProviderCheck]) -> SelfTest:
    at = max((check.at for check in checks), default=ctx.clock.now())
    return SelfTest(all(check.ok for check in checks), at, checks)


def _checked(
    ctx: Context, provider: Provider, target: Target | None, used: Collection[str]
) -> ProviderCheck:
    if ctx.door is None:
        raise ConfigError("this process does not call providers")
    provider = provider_secrets.decrypt_headers(provider, ctx.cipher)
    keys = provider_secrets.keys_of_provider(ctx, provider)
    if lacks_key(provider, keys):
        return _result(ctx, provider, target, [probe.missing_key_finding(provider)])
    secret = keys[0].secret if keys else ""
    models = ctx.door.ask(provider, secret, models_path(provider.kind), None, LIST_TIMEOUT_S)
    chat = None
    if (
        target is not None
        and models.status is not None
        and (question := probe.streamed_probe_request(provider, target)) is not None
    ):
        path, body = question
        chat = ctx.door.ask(provider, secret, path, body, CHAT_TIMEOUT_S)
        if chat.status == 200 and not body.get("stream"):
            chat = replace(chat, first_s=chat.seconds)
    findings = list(probe.probe_findings(provider, target, models, chat, used))
    return _result(ctx, provider, target, findings)


def _result(
    ctx: Context,
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
