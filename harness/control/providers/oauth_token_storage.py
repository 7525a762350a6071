"""The tokens of those who signed in: encrypted, and as the key that routers send."""

import json
from dataclasses import asdict, replace
from typing import Final

from harness.control.context import Context
from harness.domain.errors import ConfigError
from harness.domain.operations.alerts import AlertKind
from harness.domain.providers.credentials import Credential, check_key_value, place_new_key
from harness.domain.providers.device_flow import OAuthTokens
from harness.domain.providers.oauth_tokens import TOKEN_KEY_NAME, SignIn, SignInSecrets
from harness.ports import OAuthServer, Transaction

ALERTS: Final = (AlertKind.SIGN_IN_ENDED, AlertKind.TOKEN_NOT_RENEWED)


def require_oauth_server(ctx: Context) -> OAuthServer:
    if ctx.oauth is None:
        raise ConfigError("this process cannot reach OAuth servers")
    return ctx.oauth


def encrypt_secrets(ctx: Context, changed: SignIn, secrets: SignInSecrets) -> SignIn:
    return replace(changed, ciphertext=ctx.cipher.encrypt(json.dumps(asdict(secrets))))


def decrypt_secrets(ctx: Context, stored: SignIn) -> SignInSecrets:
    """Raises DecryptionFailed."""
    return SignInSecrets(**json.loads(ctx.cipher.decrypt(stored.ciphertext)))


def store_access_key(
    ctx: Context, tx: Transaction, signed_in: SignIn, access: OAuthTokens
) -> None:
    name, now = signed_in.provider, ctx.clock.now()
    stored = [each for each in tx.credentials.all() if each.provider == name]
    secret = ctx.cipher.encrypt(check_key_value(access.access_token))
    new = Credential(
        name, TOKEN_KEY_NAME, secret, 0, signed_in.signed_in_at, now, signed_in.signed_in_by
    )
    for each in place_new_key(stored, new, first=False, keep_until=None):
        tx.credentials.put(each)


def drop_access_key(ctx: Context, tx: Transaction, provider: str) -> bool:
    """Whether there was one."""
    for each in tx.credentials.all():
        if each.provider == provider and each.name == TOKEN_KEY_NAME and each.ciphertext:
            tx.credentials.put(replace(each, ciphertext="", updated_at=ctx.clock.now()))
            return True
    return False
