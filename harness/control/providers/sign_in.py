"""Signs people in for a provider with their account (OAuth's device flow), and out. The token
becomes the provider's key; `oauth_tokens` renews it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from harness.control import audit
from harness.control.context import Context
from harness.control.providers import credentials, oauth_tokens
from harness.control.serialize import CamelCase
from harness.domain.errors import NotFound, SignInRefused
from harness.domain.operations.access import Actor, Role
from harness.domain.providers.oauth_kinds import OAuthEndpoints, oauth_endpoints
from harness.domain.providers.oauth_tokens import (
    TOKEN_KEY_NAME,
    DeviceCode,
    FlowEnded,
    FlowGranted,
    FlowWaiting,
    OAuthTokens,
    PollAnswer,
    SignIn,
    SignInSecrets,
    advance_flow,
    apply_access_tokens,
    apply_account_tokens,
    begin_flow,
)
from harness.domain.routing.target import Provider
from harness.ports import OAuthServer


@dataclass(frozen=True, slots=True)
class SignedIn(CamelCase):
    """Describes a person's sign-in at a provider, and when its token ends."""

    provider: str
    signed_in_at: datetime
    signed_in_by: str
    # Of the token that requests carry now; None where it has no end.
    access_ends: datetime | None


def sign_in(
    ctx: Context,
    actor: Actor,
    name: str,
    *,
    show: Callable[[DeviceCode], None],
    pause: Callable[[float], None],
) -> SignedIn:
    """Shows a code, and waits until the person is done with it elsewhere. pause: waits so many
    seconds. Raises SignInRefused, also when the person says no or takes too long;
    SignInUnreachable, NotFound, InputError, ConfigError, NotAllowed.
    """
    actor.require(Role.ADMIN)
    server = oauth_tokens.require_oauth_server(ctx)
    provider, place = _place(ctx, actor, name)
    code = server.device_code(place)
    show(code)
    tokens = _granted(ctx, server, place, begin_flow(code, ctx.clock.monotonic()), pause)
    now = ctx.clock.now()
    exchanged = bool(place.exchange_url)
    new = SignIn(provider.name, ctx.chance.token("si-"), "", now, actor.name, renewed_at=now)
    new = apply_account_tokens(new, tokens, now, exchanged=exchanged)
    access = server.exchange(place, tokens.access_token) if exchanged else tokens
    if exchanged:
        new = apply_access_tokens(new, access, now)
    new = oauth_tokens.encrypt_secrets(
        ctx, new, SignInSecrets(tokens.access_token, tokens.refresh_token)
    )
    with ctx.store.write() as tx:
        tx.sign_ins.start(new)
        oauth_tokens.store_access_key(ctx, tx, new, access)
        subject, details = f"provider {provider.name}", {"key": TOKEN_KEY_NAME}
        audit.record(ctx, tx, actor, "credential.login", subject, details)
        credentials.resolve_sign_in_alerts(ctx, tx, provider.name)
    return SignedIn(provider.name, new.signed_in_at, new.signed_in_by, new.access_ends)


def _granted(
    ctx: Context,
    server: OAuthServer,
    place: OAuthEndpoints,
    state: FlowWaiting,
    pause: Callable[[float], None],
) -> OAuthTokens:
    while True:
        pause(max(0.0, state.ask_at - ctx.clock.monotonic()))
        seen = server.poll(place, state.code)
        match advance_flow(state, seen, ctx.clock.monotonic()):
            case FlowGranted(tokens):
                return tokens
            case FlowEnded(because):
                raise SignInRefused(
                    "the person said no: nothing is stored"
                    if because is PollAnswer.DENIED
                    else "nobody typed the code in time: nothing is stored; begin again"
                )
            case FlowWaiting() as later:
                state = later


def sign_out(ctx: Context, actor: Actor, name: str) -> None:
    """Removes a provider's sign-in and its tokens from every router. Raises NotFound."""
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        ended = tx.sign_ins.end(name)
        if not (oauth_tokens.drop_access_key(ctx, tx, name) or ended):
            raise NotFound(f"nobody is signed in for provider {name!r}")
        subject, details = f"provider {name}", {"key": TOKEN_KEY_NAME}
        audit.record(ctx, tx, actor, "credential.logout", subject, details)
        credentials.resolve_sign_in_alerts(ctx, tx, name)


def _place(ctx: Context, actor: Actor, name: str) -> tuple[Provider, OAuthEndpoints]:
    with ctx.store.read() as tx:
        known = tx.providers.all().get(name)
    kind = known.kind if known else name
    place = oauth_endpoints(name, kind, ctx.oauth_changes.get(name))
    if known is None:
        credentials.put_credential(ctx, actor, name, credentials.CredentialChange())
        with ctx.store.read() as tx:
            known = tx.providers.all()[name]
    return known, place
