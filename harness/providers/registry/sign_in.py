"""Signs people in and out with their account at a provider (OAuth's device flow), and renews
their tokens.

Swapproof stores the token for requests as the key `oauth`, so that routers treat it like any
other key. One process renews a token at a time, because a refresh token may be valid only once.
The rules of renewal are pure (`harness.providers.oauth`). `harness.providers.calls.oauth_http`
sends the requests.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import structlog

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    ConfigError,
    NotFound,
    SignInRefused,
    SignInUnreachable,
    StaleWrite,
)
from harness.frame.people.access import Actor, Role
from harness.frame.plain_data import CamelCase
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.providers.context import ProvidersContext
from harness.providers.credential import (
    Credential,
    check_key_value,
    place_new_key,
)
from harness.providers.oauth import (
    ALERT_ATTEMPTS,
    MAX_INTERVAL_S,
    MAX_WAIT_S,
    MIN_INTERVAL_S,
    TOKEN_KEY_NAME,
    DeviceCode,
    OAuthEndpoints,
    OAuthTokens,
    PollAnswer,
    Renewal,
    SignIn,
    SignInSecrets,
    apply_access_tokens,
    apply_account_tokens,
    claim_renewal,
    due_renewal,
    is_expired,
    merge_secrets,
    next_interval_s,
    oauth_endpoints,
    record_failed_renewal,
    record_refusal,
    renew_sooner,
)
from harness.providers.ports import OAuthServer
from harness.providers.records import Credentials, Providers, SignIns
from harness.providers.registry import credentials
from harness.providers.registry.provider_secrets import list_credentials_of
from harness.providers.target import Provider


@dataclass(frozen=True, slots=True)
class SignedIn(CamelCase):
    """A sign-in as people see it, without tokens."""

    provider: str
    signed_in_at: datetime
    signed_in_by: str
    # When the present access token expires; None for never.
    access_ends: datetime | None


def sign_in(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
    *,
    show: Callable[[DeviceCode], None],
    pause: Callable[[float], None],
) -> SignedIn:
    """Shows a code, and waits for the person's consent. Needs an admin.

    Args:
        show: shows the code to the person.
        pause: sleeps for a number of seconds.

    Raises SignInRefused if the person refuses, or the code expires.
    Raises SignInUnreachable without a valid answer of the server.
    Raises ConfigError without a client id, and in a process that reaches no such server.
    """
    actor.require(Role.ADMIN)
    server = require_oauth_server(ctx)
    provider, place = _find_endpoints(
        ctx,
        actor,
        name,
    )
    code = server.device_code(place)
    show(code)
    tokens = _wait_for_consent(ctx, server, place, code, pause)
    now = ctx.clock.now()
    exchanged = bool(place.exchange_url)
    new = SignIn(
        provider.name,
        ctx.chance.token("si-"),
        "",
        now,
        actor.name,
        renewed_at=now,
    )
    new = apply_account_tokens(new, tokens, now, exchanged=exchanged)
    access = server.exchange(place, tokens.access_token) if exchanged else tokens
    if exchanged:
        new = apply_access_tokens(new, access, now)
    new = encrypt_secrets(ctx, new, SignInSecrets(tokens.access_token, tokens.refresh_token))
    with ctx.store.write() as tx:
        SignIns(tx).start(new)
        store_access_key(ctx, tx, new, access)
        subject = f"provider {provider.name}"
        details = {"key": TOKEN_KEY_NAME}
        AuditLog(tx).append(actor, "credential.login", subject, details)
        credentials.resolve_sign_in_alerts(tx, provider.name)
    return SignedIn(provider.name, new.signed_in_at, new.signed_in_by, new.access_ends)


def _wait_for_consent(
    ctx: ProvidersContext,
    server: OAuthServer,
    place: OAuthEndpoints,
    code: DeviceCode,
    pause: Callable[[float], None],
) -> OAuthTokens:
    """Polls the server until the person has consented. Raises SignInRefused."""
    now = ctx.clock.monotonic()
    ends_at = now + min(code.expires_in_s, MAX_WAIT_S)
    interval_s = min(max(code.interval_s, MIN_INTERVAL_S), MAX_INTERVAL_S)
    while True:
        # The last pause ends exactly at `ends_at`, so that a late consent still counts.
        pause(max(0.0, min(interval_s, ends_at - now)))
        answer = server.poll(place, code)
        now = ctx.clock.monotonic()
        if isinstance(answer, OAuthTokens):
            return answer
        if answer is PollAnswer.DENIED:
            raise SignInRefused("the person refused: nothing is stored")
        if answer is PollAnswer.EXPIRED or now >= ends_at:
            raise SignInRefused(
                "the code expired before the person typed it: nothing is stored; begin again"
            )
        interval_s = next_interval_s(interval_s, answer)


def sign_out(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
) -> None:
    """Removes a provider's sign-in and its tokens from every router. Raises NotFound."""
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        ended = SignIns(tx).end(name)
        if not (drop_access_key(tx, name) or ended):
            raise NotFound(f"provider {name!r} has no sign-in")
        subject = f"provider {name}"
        details = {"key": TOKEN_KEY_NAME}
        AuditLog(tx).append(actor, "credential.logout", subject, details)
        credentials.resolve_sign_in_alerts(tx, name)


def _find_endpoints(
    ctx: ProvidersContext,
    actor: Actor,
    name: str,
) -> tuple[Provider, OAuthEndpoints]:
    """Returns the provider and its sign-in addresses; adds a provider that is named after its
    kind.
    """
    with ctx.store.read() as tx:
        provider = Providers(tx).all().get(name)
    kind = provider.kind if provider else name
    place = oauth_endpoints(name, kind, ctx.oauth_changes.get(name))
    if provider is None:
        credentials.put_credential(ctx, actor, name, credentials.CredentialChange())
        with ctx.store.read() as tx:
            provider = Providers(tx).all()[name]
    return provider, place


def require_oauth_server(ctx: ProvidersContext) -> OAuthServer:
    """Returns the client of the OAuth servers. Raises ConfigError in a process without a
    client.
    """
    if ctx.oauth is None:
        raise ConfigError("this process cannot reach OAuth servers")
    return ctx.oauth


def encrypt_secrets(
    ctx: ProvidersContext,
    changed: SignIn,
    secrets: SignInSecrets,
) -> SignIn:
    """Returns the sign-in with its tokens encrypted."""
    return replace(changed, ciphertext=ctx.cipher.encrypt(json.dumps(asdict(secrets))))


def decrypt_secrets(ctx: ProvidersContext, stored: SignIn) -> SignInSecrets:
    """Decrypts a sign-in's tokens. Raises DecryptionFailed."""
    return SignInSecrets(**json.loads(ctx.cipher.decrypt(stored.ciphertext)))


def store_access_key(
    ctx: ProvidersContext,
    tx: Transaction,
    signed_in: SignIn,
    access: OAuthTokens,
) -> None:
    """Stores the token that requests carry as the provider's key `oauth`."""
    name = signed_in.provider
    now = ctx.clock.now()
    stored = list_credentials_of(tx, name)
    secret = ctx.cipher.encrypt(check_key_value(access.access_token))
    new_key = Credential(
        name,
        TOKEN_KEY_NAME,
        secret,
        0,
        signed_in.signed_in_at,
        now,
        signed_in.signed_in_by,
    )
    for credential in place_new_key(
        stored,
        new_key,
        first=False,
        keep_until=None,
    ):
        Credentials(tx).put(credential)


def drop_access_key(tx: Transaction, provider: str) -> bool:
    """Removes the value of a provider's key `oauth`. Returns whether there was one."""
    for credential in list_credentials_of(tx, provider):
        if credential.name == TOKEN_KEY_NAME and credential.ciphertext:
            Credentials(tx).put(replace(credential, ciphertext="", updated_at=tx.now()))
            return True
    return False


log = structlog.get_logger("swapproof.renewals")
SIGN_IN_ENDED, TOKEN_NOT_RENEWED = credentials.SIGN_IN_ALERTS


def keep_renewed(ctx: ProvidersContext) -> bool:
    """Renews tokens (`renew_tokens`). Returns whether no provider has a sign-in: the next call
    may then wait for a commit.
    """
    with ctx.store.read() as tx:
        if not SignIns(tx).all():
            return True
    renew_tokens(ctx)
    return False


def renew_tokens(ctx: ProvidersContext) -> int:
    """Renews the tokens that are due, and removes expired ones. Returns the number of renewals.

    The control process calls it every second. A renewal becomes due sooner if an alert says
    that a provider refuses the key.
    """
    with ctx.store.read() as tx:
        sign_ins = SignIns(tx).all()
        providers = Providers(tx).all()
        refused_times = {
            sign_in.provider: _refused_at(tx, sign_in.provider) for sign_in in sign_ins
        }
    renewals = 0
    for sign_in in (candidate for candidate in sign_ins if candidate.provider in providers):
        refused_at = refused_times[sign_in.provider]
        now = ctx.clock.now()
        current = renew_sooner(sign_in, refused_at, now) if refused_at is not None else sign_in
        # The account's token comes first, because Swapproof exchanges it for the access token.
        while due_renewal(current, ctx.clock.now()) is not None:
            renewed = _renew_token(ctx, providers[sign_in.provider], current)
            if renewed is None:
                break
            renewals += renewed.renewed_at > current.renewed_at
            current = renewed
    _remove_expired_tokens(ctx)
    return renewals


def _refused_at(tx: Transaction, provider: str) -> datetime | None:
    """Returns when routers last reported that a provider refuses its key; None without an open
    alert.
    """
    keys = (provider, f"{provider}:stored:{TOKEN_KEY_NAME}")
    newest_alerts = (Alerts(tx).newest(f"{AlertKind.OUR_KEY.value}:{key}") for key in keys)
    return max(
        (alert.last_seen for alert in newest_alerts if alert and alert.open),
        default=None,
    )


def _renew_token(
    ctx: ProvidersContext,
    provider: Provider,
    sign_in_before: SignIn,
) -> SignIn | None:
    """Renews a token. Returns None if another process renews it, if the server refuses, and if
    the request fails.
    """
    claimed = claim_renewal(sign_in_before, ctx.clock.now())
    try:
        with ctx.store.write() as tx:
            SignIns(tx).replace(sign_in_before, claimed)
    except StaleWrite:
        return None
    try:
        place = oauth_endpoints(
            provider.name,
            provider.kind,
            ctx.oauth_changes.get(provider.name),
        )
        changed, access = _request_tokens(
            ctx,
            place,
            sign_in_before,
        )
    except SignInRefused as error:
        changed = record_refusal(sign_in_before, str(error))
        access = None
        log.warning("sign_in_refused", provider=provider.name, because=str(error))
    except (SignInUnreachable, ConfigError) as error:
        changed = record_failed_renewal(sign_in_before, ctx.clock.now())
        access = None
        log.warning("token_not_renewed", provider=provider.name, because=str(error))
        if changed.attempts >= ALERT_ATTEMPTS:
            _alert_failing(ctx, changed, str(error))
    try:
        with ctx.store.write() as tx:
            SignIns(tx).replace(claimed, changed)
            if access is not None:
                store_access_key(ctx, tx, changed, access)
            if not (changed.attempts or changed.refused):
                alerts.resolve_alert(tx, TOKEN_NOT_RENEWED, provider.name)
            if changed.refused:
                _alert_refused(tx, changed)
    except StaleWrite:
        return None
    return None if changed.refused or changed.attempts else changed


def _request_tokens(
    ctx: ProvidersContext,
    place: OAuthEndpoints,
    before: SignIn,
) -> tuple[SignIn, OAuthTokens | None]:
    """Requests the token that is due. Returns the sign-in after it, and the token for requests.

    The token is None if the account's token was renewed and requests carry another token.
    Raises SignInRefused, SignInUnreachable.
    """
    server = require_oauth_server(ctx)
    secrets = decrypt_secrets(ctx, before)
    if due_renewal(before, ctx.clock.now()) is Renewal.ACCESS:
        tokens = server.exchange(place, secrets.account_token)
        return apply_access_tokens(before, tokens, ctx.clock.now()), tokens
    tokens = server.refresh(place, secrets.refresh_token)
    exchanged = bool(place.exchange_url)
    changed = apply_account_tokens(before, tokens, ctx.clock.now(), exchanged=exchanged)
    changed = encrypt_secrets(ctx, changed, merge_secrets(secrets, tokens))
    return changed, None if exchanged else tokens


def _remove_expired_tokens(ctx: ProvidersContext) -> None:
    """Removes expired tokens, because providers would refuse them."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        expired_providers = {
            sign_in.provider for sign_in in SignIns(tx).all() if is_expired(sign_in, now)
        }
        token_keys = [
            credential
            for credential in Credentials(tx).all()
            if credential.name == TOKEN_KEY_NAME and credential.ciphertext
        ]
    for provider in expired_providers.intersection(key.provider for key in token_keys):
        with ctx.store.write() as tx:
            drop_access_key(tx, provider)


def _alert_refused(tx: Transaction, stored: SignIn) -> None:
    """Opens the alert that a sign-in has ended, because its server refused a renewal."""
    expires_at = stored.access_ends
    valid_until = expires_at if expires_at and expires_at > tx.now() else None
    remaining = (
        f"the present token until {valid_until:%Y-%m-%d %H:%M} UTC"
        if valid_until
        else "no token"
    )
    alerts.resolve_alert(tx, TOKEN_NOT_RENEWED, stored.provider)
    alerts.raise_alert(
        tx,
        SIGN_IN_ENDED,
        stored.provider,
        subject=f"provider {stored.provider}",
        title=f"the sign-in of {stored.signed_in_by} for {stored.provider} has ended",
        text=f"{stored.refused}. Requests carry {remaining}: sign in again with "
        f"`swapproof provider key login {stored.provider}`.",
    )


def _alert_failing(
    ctx: ProvidersContext,
    stored: SignIn,
    error: str,
) -> None:
    """Opens the alert that several attempts to renew a token failed."""
    with ctx.store.write() as tx:
        alerts.raise_alert(
            tx,
            TOKEN_NOT_RENEWED,
            stored.provider,
            subject=f"provider {stored.provider}",
            title=f"the token of {stored.provider} could not be renewed",
            text=f"{error}. Tried {stored.attempts} times.",
        )
