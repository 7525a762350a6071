"""Checks the providers of an installation for `swapgate doctor`: their keys, their lists of
models, their answers to a short question, and whether what is stored of them can be decrypted.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from harness.app.doctor import provider_requests
from harness.control.context import Context
from harness.control.providers import checks, provider_secrets
from harness.control.routing import routes
from harness.domain.errors import SwapgateError
from harness.domain.formatting import format_milliseconds
from harness.domain.providers.credentials import ProviderKey, keys_from_environment, lacks_key
from harness.domain.providers.oauth_kinds import key_command
from harness.domain.providers.probe import ProbeStatus, ProbeSubject, parse_model_list
from harness.domain.routing.table import FIRST_ROUTE_STEP
from harness.domain.routing.target import Provider
from harness.domain.settings import Settings

FindingLevel = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """What one check of `swapgate doctor` found, and what to do next."""

    subject: str
    status: FindingLevel
    found: str
    next_step: str = ""  # empty where there is nothing to do


NO_SUCH_PAGE: Final = (404, 405, 501)


def load_providers(context: Context | None, settings: Settings) -> Mapping[str, Provider]:
    """The database's, which rule, and those of the file that it does not know yet."""
    if context is None:
        return settings.providers
    with context.store.read() as tx:
        return {**settings.providers, **tx.providers.all()}


def check_providers(
    context: Context | None, providers: Mapping[str, Provider]
) -> Iterator[DoctorFinding]:
    """Asks each provider for its list of models, and looks for those that routes use."""
    if not providers:
        yield DoctorFinding("providers", "warn", "none is configured", FIRST_ROUTE_STEP)
        return
    wanted = _models_in_use(context)
    allowed = context.allow_addresses if context is not None else ()
    keys = {
        name: provider_secrets.keys_of_provider(context, provider)
        if context
        else keys_from_environment(provider, os.environ)
        for name, provider in providers.items()
    }
    with ThreadPoolExecutor(max_workers=8) as pool:
        yield from pool.map(
            lambda provider: _provider(
                provider_secrets.decrypt_headers(provider, context.cipher)
                if context
                else provider,
                keys[provider.name],
                wanted.get(provider.name, set()),
                allowed,
            ),
            providers.values(),
        )


def check_answers(context: Context) -> Iterator[DoctorFinding]:
    """What a short streamed question to each provider shows, beyond its list of models."""
    shown = (ProbeSubject.MODEL, ProbeSubject.FIRST_TOKEN, ProbeSubject.CLOCK)
    for provider in checks.run_check(context).providers:
        for finding in provider.findings:
            if finding.subject in shown and finding.status is not ProbeStatus.UNKNOWN:
                subject = f"{finding.subject} of {provider.provider}"
                # A failure of one request is none of the installation.
                status = "ok" if finding.status is ProbeStatus.OK else "warn"
                yield DoctorFinding(subject, status, finding.found, finding.next_step)  # type: ignore[arg-type]  # one of two


def check_stored_keys(context: Context) -> Iterator[DoctorFinding]:
    """Whether what is stored can be decrypted here."""
    with context.store.read() as tx:
        stored = provider_secrets.list_live_credentials(context, tx)
    for credential in stored:
        try:
            context.cipher.decrypt(credential.ciphertext)
        except SwapgateError as error:
            subject = f"stored key {credential.name} of {credential.provider}"
            yield DoctorFinding(
                subject,
                "fail",
                str(error),
                f"`swapgate provider key set {credential.provider}`",
            )


def check_stored_headers(context: Context) -> Iterator[DoctorFinding]:
    """Whether the stored headers can be decrypted here."""
    with context.store.read() as tx:
        known = tx.providers.all().values()
    for provider in known:
        lost = provider.sealed_headers.keys() - _opened_names(context, provider)
        for name in sorted(lost):
            step = f"set the headers of {provider.name} anew, or bring the encryption key back"
            yield DoctorFinding(
                f"header {name} of {provider.name}", "fail", "it cannot be decrypted", step
            )


def _opened_names(context: Context, provider: Provider) -> Iterable[str]:
    return provider_secrets.decrypt_headers(provider, context.cipher).extra_headers.keys()


def _models_in_use(context: Context | None) -> dict[str, set[str]]:
    """Provider to the models of the targets that routes use."""
    found: dict[str, set[str]] = {}
    if context is not None:
        table = routes.load_table(context)
        for route in table.routes.values():
            for target in (table.targets[id_] for id_ in route.targets):
                found.setdefault(target.provider, set()).add(target.model)
    return found


def _provider(
    provider: Provider,
    keys: Sequence[ProviderKey],
    wanted: set[str],
    allowed: Collection[str],
) -> DoctorFinding:
    subject = f"provider {provider.name}"
    stored = any(key.name not in provider.key_envs for key in keys)
    unset = ", ".join(provider_requests.unset_keys(provider))
    if unset and not stored:
        found = f"a key of it is missing: {unset} not set"
        step = f"set {unset}, e.g. in .env, or `swapgate provider key set {provider.name}`"
        return DoctorFinding(subject, "fail", found, step)
    if lacks_key(provider, keys):
        step = f"`{key_command(provider.name, provider.kind)}`"
        return DoctorFinding(
            subject, "fail", "it has no key: its targets get no requests", step
        )
    call = provider_requests.models(provider, key=keys[0] if keys else None, allowed=allowed)
    if call.status in NO_SUCH_PAGE:
        step = "try `swapgate model probe TARGET`"
        return DoctorFinding(subject, "warn", "it answers, but lists no models", step)
    if call.error:
        return DoctorFinding(subject, "fail", call.error, "fix api_base or the key")
    listed = parse_model_list(call.content)
    missing = ", ".join(sorted(wanted - listed)) if listed else ""
    if missing:
        step = "try `swapgate model probe TARGET`; a retired model needs a proposal"
        return DoctorFinding(subject, "warn", f"it does not list {missing}", step)
    return DoctorFinding(
        subject, "ok", f"{len(listed)} models, {format_milliseconds(call.seconds * 1000)}"
    )
