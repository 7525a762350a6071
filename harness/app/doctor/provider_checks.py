"""Checks the providers of an installation for `swapgate doctor`: their keys, their lists of
models, their answers to a short question, and whether what is stored of them can be decrypted.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from harness.app.doctor.provider_requests import refused_key
from harness.control.context import Context
from harness.control.providers import checks, provider_secrets
from harness.control.routing import routes
from harness.domain.errors import SwapgateError
from harness.domain.formatting import format_milliseconds
from harness.domain.providers.credentials import ProviderKey, keys_from_environment, lacks_key
from harness.domain.providers.oauth_kinds import key_command
from harness.domain.providers.probe import (
    ProbeStatus,
    ProbeSubject,
    models_path,
    parse_model_list,
)
from harness.domain.routing.table import FIRST_ROUTE_STEP
from harness.domain.routing.target import Provider
from harness.domain.settings import Settings
from harness.runtime.clock import SystemClock
from harness.runtime.outbound.provider_probe import HttpProviderProbe

FindingLevel = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """What one check of `swapgate doctor` found, and what to do next."""

    subject: str
    status: FindingLevel
    found: str
    next_step: str = ""  # empty where there is nothing to do


NO_SUCH_PAGE: Final = (404, 405, 501)
_SHOWN: Final = (ProbeSubject.MODEL, ProbeSubject.FIRST_TOKEN, ProbeSubject.CLOCK)
_LIST_TIMEOUT_S: Final = 5.0


def load_providers(context: Context | None, settings: Settings) -> Mapping[str, Provider]:
    """The database's, which rule, and those of the file that it does not know yet."""
    if context is None:
        return settings.providers
    with context.store.read() as tx:
        return {**settings.providers, **tx.providers.all()}


def check_providers(settings: Settings, context: Context | None) -> Iterator[DoctorFinding]:
    """Asks each provider for its list of models, and looks for those that routes use."""
    providers = load_providers(context, settings)
    if not providers:
        yield DoctorFinding("providers", "warn", "none is configured", FIRST_ROUTE_STEP)
        return
    used = _models_in_use(context)

    def found(provider: Provider) -> DoctorFinding:
        allowed: Collection[str] = ()
        if context is None:
            keys = keys_from_environment(provider, os.environ)
        else:
            allowed = context.allow_addresses
            keys = provider_secrets.keys_of_provider(context, provider)
            provider = provider_secrets.decrypt_headers(provider, context.cipher)
        return _key_fault(provider, keys) or _list_of_models(
            provider, keys[0] if keys else None, used.get(provider.name, set()), allowed
        )

    with ThreadPoolExecutor(max_workers=8) as pool:
        yield from pool.map(found, providers.values())


def check_answers(_: Settings, context: Context) -> Iterator[DoctorFinding]:
    """What a short streamed question to each provider shows, beyond its list of models."""
    for provider in checks.run_check(context).providers:
        for finding in provider.findings:
            if finding.subject in _SHOWN and finding.status is not ProbeStatus.UNKNOWN:
                subject = f"{finding.subject} of {provider.provider}"
                # A failure of one request is none of the installation.
                status: FindingLevel = "ok" if finding.status is ProbeStatus.OK else "warn"
                yield DoctorFinding(subject, status, finding.found, finding.next_step)


def check_stored_secrets(_: Settings, context: Context) -> Iterator[DoctorFinding]:
    """Whether stored keys and headers can be decrypted here."""
    with context.store.read() as tx:
        stored = provider_secrets.list_live_credentials(context, tx)
        known = tx.providers.all().values()
    for key in stored:
        try:
            context.cipher.decrypt(key.ciphertext)
        except SwapgateError as error:
            subject = f"stored key {key.name} of {key.provider}"
            step = f"`swapgate provider key set {key.provider}`"
            yield DoctorFinding(subject, "fail", str(error), step)
    for provider in known:
        opened = provider_secrets.decrypt_headers(provider, context.cipher).extra_headers
        step = f"set the headers of {provider.name} anew, or bring the encryption key back"
        for name in sorted(provider.sealed_headers.keys() - opened.keys()):
            subject = f"header {name} of {provider.name}"
            yield DoctorFinding(subject, "fail", "it cannot be decrypted", step)


def _models_in_use(context: Context | None) -> dict[str, set[str]]:
    """Provider to the models of the targets that routes use."""
    found: dict[str, set[str]] = {}
    if context is not None:
        table = routes.load_table(context)
        for route in table.routes.values():
            for target in (table.targets[id_] for id_ in route.targets):
                found.setdefault(target.provider, set()).add(target.model)
    return found


def _key_fault(provider: Provider, keys: Sequence[ProviderKey]) -> DoctorFinding | None:
    subject = f"provider {provider.name}"
    stored = any(key.name not in provider.key_envs for key in keys)
    unset = ", ".join(name for name in provider.key_envs if not os.environ.get(name))
    if unset and not stored:
        found = f"a key of it is missing: {unset} not set"
        step = f"set {unset}, e.g. in .env, or `swapgate provider key set {provider.name}`"
        return DoctorFinding(subject, "fail", found, step)
    if lacks_key(provider, keys):
        step = f"`{key_command(provider.name, provider.kind)}`"
        found = "it has no key: its targets get no requests"
        return DoctorFinding(subject, "fail", found, step)
    return None


def _list_of_models(
    provider: Provider, key: ProviderKey | None, wanted: set[str], allowed: Collection[str]
) -> DoctorFinding:
    subject, path = f"provider {provider.name}", models_path(provider.kind)
    door = HttpProviderProbe(SystemClock(), allowed)
    reply = door.ask(provider, key.secret if key else "", path, None, _LIST_TIMEOUT_S)
    if reply.status in NO_SUCH_PAGE:
        step = "try `swapgate model probe TARGET`"
        return DoctorFinding(subject, "warn", "it answers, but lists no models", step)
    if why := refused_key(provider, key, reply.status) or reply.error:
        return DoctorFinding(subject, "fail", why, "fix api_base or the key")
    listed = parse_model_list(reply.content)
    missing = ", ".join(sorted(wanted - listed)) if listed else ""
    if missing:
        step = "try `swapgate model probe TARGET`; a retired model needs a proposal"
        return DoctorFinding(subject, "warn", f"it does not list {missing}", step)
    found = f"{len(listed)} models, {format_milliseconds(reply.seconds * 1000)}"
    return DoctorFinding(subject, "ok", found)
