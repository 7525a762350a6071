"""Sets, imports, lists and removes providers' keys. It never returns a stored key.

A provider may have several keys, which routers try in the order of their positions.
`ctx.cipher` encrypts the values before they are stored. `provider_secrets` decrypts them for
calls. `sign_in` stores the token of a person's account as one more key.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.configuration.dotenv import find_dotenv
from harness.frame.errors import Conflict, InputError, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.plain_data import CamelCase
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.frame.suggestions import did_you_mean
from harness.providers.context import ProvidersContext
from harness.providers.credential import (
    Credential,
    check_key_name,
    check_key_value,
    keys_from_environment,
    lacks_key,
    place_new_key,
)
from harness.providers.kinds import (
    PROVIDER_KINDS,
    check_kind,
    check_provider_name,
)
from harness.providers.oauth import TOKEN_KEY_NAME, check_kind_takes_key
from harness.providers.records import Credentials, Providers, SignIns
from harness.providers.registry import named_models, provider_secrets, targets
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Provider

DEFAULT_KEY_NAME: Final = "default"
LONGEST_OVERLAP: Final = timedelta(days=365)
SIGN_IN_ALERTS: Final = (
    AlertKind.SIGN_IN_ENDED,
    AlertKind.TOKEN_NOT_RENEWED,
)


@dataclass(frozen=True, slots=True)
class StoredKeyView(CamelCase):
    """A stored key as people may see it: everything but its value."""

    name: str
    created_at: datetime
    updated_at: datetime
    created_by: str
    expires_at: datetime | None  # when Swapproof removes it


@dataclass(frozen=True, slots=True)
class KeyVariable(CamelCase):
    """An environment variable of this process that holds a key."""

    variable: str
    file: str | None  # path of the `.env` that sets it; None if no `.env` does

    @property
    def text(self) -> str:
        return f"{self.variable} in {self.file or 'the environment of this process'}"

    @property
    def removal(self) -> str:
        """Tells a person how to remove the key."""
        if self.file is None:
            return f"unset {self.variable} where Swapproof starts, and restart its processes"
        return (
            f"delete {self.variable} from {self.file}, and send SIGHUP to Swapproof's processes"
        )


@dataclass(frozen=True, slots=True)
class ProviderCredentials(CamelCase):
    """A provider's keys as people may see them, without values of keys and headers."""

    name: str
    kind: str
    has_value: bool  # it has a key
    # Source of the first key in this process, `stored` or `environment`; None without a key.
    source: str | None
    keys: int  # number of keys
    lacks_key: bool  # it needs a key and has none, so its targets get no requests
    api_base: str
    extra_headers: Sequence[str]  # their names
    stored: Sequence[StoredKeyView]
    # The keys in the environment, which the router tries after the stored keys.
    variables: Sequence[KeyVariable] = ()
    # Filled only after a change that moved the provider: the uses that need new proof.
    outdated: Sequence[str] = ()
    # Filled only after a new key: the number of listed models, or an error.
    listing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialChange(ProviderChange):
    """A change of a provider and its keys; None leaves a value unchanged."""

    value: str | None = field(default=None, repr=False)
    key: str = DEFAULT_KEY_NAME  # the stored key's name
    first: bool = False  # whether the router tries this key before all others
    # How long the replaced value remains in use after the new one is set.
    overlap: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ImportedCredential:
    """A key that was found in an environment variable. variable: its name."""

    provider: str
    variable: str
    kept: bool = False  # whether the provider keeps its earlier key


@dataclass(frozen=True, slots=True)
class EncryptionRotation:
    values: int  # number of values that were encrypted again


def list_credentials(ctx: ProvidersContext) -> Sequence[ProviderCredentials]:
    """Lists every provider and whether it has a key, never the key."""
    with ctx.store.read() as tx:
        return [_credentials_of(ctx, tx, provider) for provider in Providers(tx).all().values()]


def get_credentials(ctx: ProvidersContext, name: str) -> ProviderCredentials:
    """Describes the keys of a provider, without their values. Raises NotFound."""
    with ctx.store.read() as tx:
        return _credentials_of(ctx, tx, targets.require_provider(tx, name))


def _credentials_of(
    ctx: ProvidersContext,
    tx: Transaction,
    provider: Provider,
) -> ProviderCredentials:
    history = provider_secrets.list_credentials_of(tx, provider.name)
    stored = [credential for credential in history if credential.live(ctx.clock.now())]
    environment_keys = keys_from_environment(provider, ctx.environ)
    source = "stored" if stored else "environment" if environment_keys else None
    # Also counts keys that this process cannot decrypt; the router and `doctor` report these
    # keys.
    keys = [*stored, *environment_keys]
    return ProviderCredentials(
        name=provider.name,
        kind=provider.kind,
        has_value=bool(keys),
        source=source,
        keys=len(keys),
        lacks_key=not keys and lacks_key(provider, (), stored_before=bool(history)),
        api_base=provider.api_base,
        extra_headers=provider.header_names,
        stored=[
            StoredKeyView(
                **{field_.name: getattr(key, field_.name) for field_ in fields(StoredKeyView)}
            )
            for key in stored
        ],
        variables=[
            KeyVariable(key.name, find_dotenv(key.name, ctx.environ))
            for key in environment_keys
        ],
    )


def put_credential(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    change: CredentialChange,
    *,
    create_only: bool = False,
) -> ProviderCredentials:
    """Sets a provider's key and address. Adds a provider of a known kind. Raises Conflict.

    Routers use a new key within seconds, without a restart. A provider at a new address needs
    new proof; the answer lists the affected uses.

    Args:
        create_only: raises Conflict if the provider has a live key.

    Raises NotFound for a provider that is neither known nor named after a kind.
    Raises InputError for an invalid key, name or overlap, and for a kind that takes no key.
    Raises NotAllowed if the provider may see a data class, and its address would change.
    """
    credentials = _store_credential(ctx, actor, name, change, create_only=create_only)
    if change.value is None:
        return credentials
    return replace(credentials, listing=named_models.describe_list(ctx, actor, name))


def _store_credential(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    change: CredentialChange,
    *,
    create_only: bool,
) -> ProviderCredentials:
    """Writes provider, keys and audit event in one transaction, without calling the
    provider.
    """
    actor.require(Role.ADMIN)
    check_key_name(change.key)
    if change.overlap is not None and not timedelta(0) <= change.overlap <= LONGEST_OVERLAP:
        raise InputError("an overlap must be at most a year")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        stored = provider_secrets.list_credentials_of(tx, name)
        if create_only and any(credential.live(now) for credential in stored):
            raise Conflict(
                f"provider {name!r} has a key already: replace it with PUT or "
                f"`swapproof provider key set {name}`"
            )
        providers = Providers(tx).all()
        existing = providers.get(name)
        old = existing or _new_provider(
            name, change.kind, providers, with_variable=change.value is None
        )
        if existing is not None and change.kind not in (None, existing.kind):
            raise InputError(
                f"provider {name!r} is of kind {existing.kind!r}: `swapproof provider set "
                f"{name} --kind {change.kind}` changes that"
            )
        value = None if change.value is None else check_key_value(change.value)
        after = targets.change_of_provider(ctx, old, change)
        if value is not None:
            check_kind_takes_key(name, after.kind)
        changed = not targets.has_same_values(ctx, existing, after)
        if changed:
            after = targets.record_move(ctx, tx, actor, existing, after, change.reason)
            Providers(tx).put(provider_secrets.encrypt_headers(after, ctx.cipher))
        if value is not None:
            new_key = Credential(
                name,
                change.key,
                ctx.cipher.encrypt(value),
                0,
                now,
                now,
                actor.name,
            )
            keep_until = now + change.overlap if change.overlap else None
            for credential in place_new_key(
                stored,
                new_key,
                first=change.first,
                keep_until=keep_until,
            ):
                Credentials(tx).put(credential)
        details = _change_details(change, after, existing, changed=changed)
        AuditLog(tx).append(actor, "credential.put", f"provider {name}", details)
        moved = existing is not None and after.moved != existing.moved
        outdated = ctx.uses.outdated_work(tx, name) if moved else ()
        return replace(_credentials_of(ctx, tx, after), outdated=outdated)


def _change_details(
    change: CredentialChange,
    after: Provider,
    known: Provider | None,
    *,
    changed: bool,
) -> dict[str, object]:
    """Builds the audit event's details, without values of keys and headers."""
    details: dict[str, object] = {}
    if change.value is not None:
        details |= {"key": change.key}
        if change.overlap:
            details |= {"overlap_s": change.overlap.total_seconds()}
    if changed:
        details |= {
            "kind": after.kind,
            "api_base": after.api_base,
            "added": known is None,
        }
        details |= targets.move_details(after)
    return details


def check_provider(
    ctx: ProvidersContext,
    name: str,
    kind: str | None,
) -> None:
    """Checks that a provider can get a key, before a person types one.

    Args:
        kind: as in `CredentialChange`.

    Raises NotFound, InputError.
    """
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    if name not in providers:
        _new_provider(name, kind, providers, with_variable=False)


def _new_provider(
    name: str,
    kind: str | None,
    known: Iterable[str],
    *,
    with_variable: bool,
) -> Provider:
    """Builds a provider that is not stored yet.

    Args:
        with_variable: whether the provider also reads its kind's environment variable. False
            for a provider with a stored key, so that a variable that is set by chance adds no
            second key.
    """
    check_provider_name(name)
    kind = kind or (name if name in PROVIDER_KINDS else None)
    if kind is None:
        raise NotFound(
            f"there is no provider {name!r}, and no kind of that name"
            f"{did_you_mean(name, (*known, *PROVIDER_KINDS), otherwise='.')} Give its `kind` "
            f"and `apiBase`; kinds: {', '.join(PROVIDER_KINDS)}"
        )
    kind_row = PROVIDER_KINDS[check_kind(kind)]
    return Provider(
        name,
        kind,
        kind_row.api_base,
        kind_row.key_env or None if with_variable else None,
    )


def remove_credential(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    *,
    key: str | None = None,
) -> ProviderCredentials:
    """Removes stored keys. Raises NotFound without a stored key; the message names the places
    of the provider's other keys.

    Args:
        key: name of the key to remove; None for all keys and the sign-in.

    Needs an admin.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        provider = targets.require_provider(tx, name)
        removed = remove_stored_keys(tx, actor, name, key)
        remaining = _credentials_of(ctx, tx, provider)
    if not removed:
        missing = f"no stored key {key!r}" if key else "no stored key"
        raise NotFound(f"provider {name!r} has {missing}{_describe_other_keys(remaining)}")
    return remaining


def _describe_other_keys(credentials: ProviderCredentials) -> str:
    """Describes the provider's other keys, as the end of an error's sentence."""
    stored = (
        f": it has {', '.join(key.name for key in credentials.stored)}"
        if credentials.stored
        else ""
    )
    if credentials.variables:
        return f"{stored}. {describe_variables(credentials)}"
    return stored or ", and this process has no key of it: there is nothing to remove"


def describe_variables(credentials: ProviderCredentials) -> str:
    """Tells where a provider's keys outside the database are, and how to remove them."""
    locations = " and ".join(variable.text for variable in credentials.variables)
    ways = "; ".join(variable.removal for variable in credentials.variables)
    if len(credentials.variables) > 1:
        beginning = "Its other keys come" if credentials.stored else "Its keys come"
        return f"{beginning} from {locations}. To take them away, {ways}"
    beginning = "Another key comes" if credentials.stored else "Its key comes"
    return f"{beginning} from {locations}. To take it away, {ways}"


def remove_stored_keys(
    tx: Transaction,
    actor: Actor,
    name: str,
    key: str | None = None,
) -> bool:
    """Removes one key, or all keys and the sign-in. Returns whether there was one.

    A key's row stays, without its value. The caller checks the actor's role.
    """
    stored = provider_secrets.list_credentials_of(tx, name)
    now = tx.now()
    removed = [entry for entry in stored if entry.ciphertext and key in (None, entry.name)]
    for credential in removed:
        Credentials(tx).put(_without_value(credential, now))
    # Ends the sign-in, because its next renewal would store the token again.
    ended = key in (None, TOKEN_KEY_NAME) and SignIns(tx).end(name)
    if ended:
        resolve_sign_in_alerts(tx, name)
    if removed or ended:
        details = {"keys": [credential.name for credential in removed]}
        AuditLog(tx).append(actor, "credential.remove", f"provider {name}", details)
    return bool(removed or ended)


def resolve_sign_in_alerts(tx: Transaction, provider: str) -> None:
    """Resolves the alerts about a provider's sign-in, because a person signed in or out."""
    for kind in SIGN_IN_ALERTS:
        alerts.resolve_alert(tx, kind, provider)


def expire_credentials(ctx: ProvidersContext) -> int:
    """Removes the values of expired keys. Returns their number.

    The control process calls it. Routers already skip an expired key.
    """
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        expired = [
            entry for entry in Credentials(tx).all() if entry.ciphertext and not entry.live(now)
        ]
        for credential in expired:
            Credentials(tx).put(_without_value(credential, now))
            details = {"keys": [credential.name], "reason": "expired"}
            subject = f"provider {credential.provider}"
            AuditLog(tx).append(SYSTEM, "credential.remove", subject, details)
    return len(expired)


def _without_value(credential: Credential, now: datetime) -> Credential:
    return replace(
        credential,
        ciphertext="",
        updated_at=now,
        expires_at=None,
    )


def rotate_encryption(ctx: ProvidersContext, actor: Actor) -> EncryptionRotation:
    """Encrypts all stored values with the newest key, or raises DecryptionFailed.

    All values change in one transaction: keys, sign-ins and extra headers. Needs an admin.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        stored = [credential for credential in Credentials(tx).all() if credential.ciphertext]
        for key in stored:
            secret_name = f"the key {key.name!r} of provider {key.provider!r}"
            ciphertext = provider_secrets.reencrypt(ctx.cipher, key.ciphertext, secret_name)
            Credentials(tx).put(replace(key, ciphertext=ciphertext))
        sign_ins = SignIns(tx).all()
        for stored_sign_in in sign_ins:
            secret_name = f"the sign-in for provider {stored_sign_in.provider!r}"
            ciphertext = provider_secrets.reencrypt(
                ctx.cipher, stored_sign_in.ciphertext, secret_name
            )
            SignIns(tx).save(replace(stored_sign_in, ciphertext=ciphertext))
        with_headers = [
            candidate for candidate in Providers(tx).all().values() if candidate.header_names
        ]
        for provider in with_headers:
            Providers(tx).put(provider_secrets.reencrypt_headers(provider, ctx.cipher))
        headers = sum(len(provider.header_names) for provider in with_headers)
        values = len(stored) + len(sign_ins) + headers
        action = "credential.rotate_encryption"
        details = {"values": values}
        AuditLog(tx).append(actor, action, "credentials", details)
    return EncryptionRotation(values)


def import_credentials(
    ctx: ProvidersContext,
    actor: Actor,
    environ: Mapping[str, str],
    *,
    replace_known: bool = False,
) -> Sequence[ImportedCredential]:
    """Reads keys from environment variables, and stores them in the database.

    Args:
        replace_known: whether a provider that has a key gets the new one.

    Raises InputError, storing no key, if a kind takes no key.
    """
    actor.require(Role.ADMIN)
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
        stored = provider_secrets.list_live_credentials(tx)
    with_key = {credential.provider for credential in stored}
    imported = []
    found_keys = [
        (provider, variable, value)
        for provider, variable in list_key_variables(providers.values())
        if (value := environ.get(variable, "").strip())
    ]
    for provider, _, _ in found_keys:
        check_kind_takes_key(
            provider, providers[provider].kind if provider in providers else provider
        )
    for provider, variable, value in found_keys:
        kept = provider in with_key and not replace_known
        if not kept:
            put_credential(ctx, actor, provider, CredentialChange(value=value))
        imported.append(ImportedCredential(provider, variable, kept))
    return imported


def list_key_variables(known: Iterable[Provider]) -> Iterable[tuple[str, str]]:
    """Yields (provider, variable) for each key that the environment may contain.

    Configured providers come first, then the kinds with a usual address and without a provider.
    """
    configured = {provider.name: provider for provider in known}
    for provider in configured.values():
        kind = PROVIDER_KINDS.get(provider.kind)
        variable = provider.api_key_env or (kind.key_env if kind else "")
        if variable:
            yield provider.name, variable
    used_kinds = {provider.kind for provider in configured.values()} | set(configured)
    for kind in PROVIDER_KINDS.values():
        if kind.key_env and kind.api_base and kind.name not in used_kinds:
            yield kind.name, kind.key_env
