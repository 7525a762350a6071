"""Encrypts and decrypts providers' secrets. It logs a secret that it cannot decrypt.

A secret that cannot be decrypted must not stop a router: the provider then lacks that key or
header, and `swapproof doctor` reports it. Only a rotation raises DecryptionFailed.
`credentials` stores the secrets. No module stores or logs a decrypted value.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.frame.errors import DecryptionFailed, SwapproofError
from harness.frame.ports import Cipher
from harness.frame.records.transaction import Transaction
from harness.providers.context import ProvidersContext
from harness.providers.credential import (
    Credential,
    ProviderKey,
    ProviderKeySets,
    StoredKey,
    keys_from_environment,
    lacks_key,
)
from harness.providers.records import Credentials, Providers
from harness.providers.target import Provider

log = logging.getLogger(__name__)


def encrypt_headers(provider: Provider, cipher: Cipher) -> Provider:
    """Encrypts the values of a provider's extra headers. Raises ConfigError without an
    encryption key.
    """
    if not provider.extra_headers:
        return provider
    ciphertexts = {
        name: cipher.encrypt(value) for name, value in provider.extra_headers.items()
    }
    return replace(
        provider,
        extra_headers={},
        sealed_headers={**provider.sealed_headers, **ciphertexts},
    )


def decrypt_headers(provider: Provider, cipher: Cipher) -> Provider:
    """Returns the provider with clear headers, for a request. Leaves out headers that it cannot
    decrypt.
    """
    if not provider.sealed_headers:
        return provider
    clear_headers = dict(provider.extra_headers)
    for name, ciphertext in provider.sealed_headers.items():
        try:
            clear_headers[name] = cipher.decrypt(ciphertext)
        except SwapproofError as error:
            log.error("the header %s of provider %s: %s", name, provider.name, error)  # noqa: TRY400 - the message names the cause
    return replace(provider, extra_headers=clear_headers, sealed_headers={})


def reencrypt_headers(provider: Provider, cipher: Cipher) -> Provider:
    """Encrypts a provider's headers with the newest key. Raises DecryptionFailed."""
    ciphertexts = {
        name: reencrypt(
            cipher,
            ciphertext,
            f"the header {name!r} of provider {provider.name!r}",
        )
        for name, ciphertext in provider.sealed_headers.items()
    }
    return encrypt_headers(replace(provider, sealed_headers=ciphertexts), cipher)


def reencrypt(
    cipher: Cipher,
    ciphertext: str,
    secret_name: str,
) -> str:
    """Encrypts a stored value with the newest key.

    Args:
        secret_name: the secret's name for the message.

    Raises DecryptionFailed.
    """
    try:
        return cipher.reencrypt(ciphertext)
    except DecryptionFailed as error:
        raise DecryptionFailed(f"{secret_name}: {error}") from None


def decrypt_keys(stored: Iterable[StoredKey], cipher: Cipher) -> dict[str, list[ProviderKey]]:
    """Decrypts stored keys, by provider, in their order. Leaves out removed keys, and keys that
    it cannot decrypt.
    """
    keys_by_provider: dict[str, list[ProviderKey]] = {}
    for key in stored:
        if not key.ciphertext:
            continue
        try:
            secret = cipher.decrypt(key.ciphertext)
        except SwapproofError as error:
            log.error("the key %s of provider %s: %s", key.name, key.provider, error)  # noqa: TRY400 - the message names the cause
            continue
        keys_by_provider.setdefault(key.provider, []).append(
            ProviderKey(f"stored:{key.name}", secret)
        )
    return keys_by_provider


def key_sets(
    providers: Iterable[Provider],
    stored: Iterable[StoredKey],
    cipher: Cipher,
    environ: Mapping[str, str],
) -> ProviderKeySets:
    """Returns each provider's keys, in the order in which the router tries them: first stored
    keys, then keys from environment variables.

    Args:
        environ: the environment variables of the process that calls providers.
    """
    stored_keys = decrypt_keys(stored, cipher)
    return {
        provider.name: (
            *stored_keys.get(provider.name, ()),
            *keys_from_environment(provider, environ),
        )
        for provider in providers
    }


def list_live_credentials(tx: Transaction) -> list[Credential]:
    """Lists the keys that have a value and have not expired."""
    now = tx.now()
    return [credential for credential in Credentials(tx).all() if credential.live(now)]


def list_credentials_of(tx: Transaction, provider: str) -> list[Credential]:
    """Lists all keys that a provider ever had, also removed ones, by position."""
    return [stored for stored in Credentials(tx).all() if stored.provider == provider]


def find_usable_providers(ctx: ProvidersContext, tx: Transaction) -> frozenset[str]:
    """Returns the names of the providers that have a key or need none."""
    all_keys = Credentials(tx).all()
    now = ctx.clock.now()
    with_history = {stored.provider for stored in all_keys}
    with_live_key = {stored.provider for stored in all_keys if stored.live(now)}
    return frozenset(
        name
        for name, provider in Providers(tx).all().items()
        if name in with_live_key
        or keys_from_environment(provider, ctx.environ)
        or not lacks_key(provider, (), stored_before=name in with_history)
    )


def keys_of_provider(ctx: ProvidersContext, provider: Provider) -> tuple[ProviderKey, ...]:
    """Returns a provider's decrypted keys, in the order in which the router tries them."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        live_keys = [key for key in list_credentials_of(tx, provider.name) if key.live(now)]
    return tuple(key_sets([provider], live_keys, ctx.cipher, ctx.environ)[provider.name])
