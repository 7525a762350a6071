"""The keys of providers in clear, for the moment in which they are used."""

import logging
from collections.abc import Iterable, Mapping

from harness.control.context import Context
from harness.domain.errors import SwapgateError
from harness.domain.providers.credentials import (
    Credential,
    ProviderKey,
    ProviderKeySets,
    StoredKey,
    keys_from_environment,
)
from harness.domain.routing.target import Provider
from harness.ports import Cipher, Transaction

log = logging.getLogger(__name__)


def decrypt_credential(
    stored: Iterable[StoredKey], cipher: Cipher
) -> dict[str, list[ProviderKey]]:
    """By provider, in order. One that cannot be decrypted is left out, and said in the log."""
    found: dict[str, list[ProviderKey]] = {}
    for each in stored:
        if not each.ciphertext:
            continue
        try:
            secret = cipher.decrypt(each.ciphertext)
        except SwapgateError as error:
            log.error("the key %s of provider %s: %s", each.name, each.provider, error)  # noqa: TRY400 - the message is the whole story
            continue
        found.setdefault(each.provider, []).append(ProviderKey(f"stored:{each.name}", secret))
    return found


def key_sets(
    providers: Iterable[Provider],
    stored: Iterable[StoredKey],
    cipher: Cipher,
    environ: Mapping[str, str],
) -> ProviderKeySets:
    """What is sent to these providers: the stored keys first, then the environment's."""
    clear = decrypt_credential(stored, cipher)
    return {
        each.name: (*clear.get(each.name, ()), *keys_from_environment(each, environ))
        for each in providers
    }


def list_live_credentials(ctx: Context, tx: Transaction) -> list[Credential]:
    """The stored keys that are in force now."""
    now = ctx.clock.now()
    return [each for each in tx.credentials.all() if each.live(now)]


def keys_of_provider(ctx: Context, provider: Provider) -> tuple[ProviderKey, ...]:
    """Those that a request of ours to this provider may use, the first one first."""
    with ctx.store.read() as tx:
        stored = [
            each for each in list_live_credentials(ctx, tx) if each.provider == provider.name
        ]
    sets = key_sets([provider], stored, ctx.cipher, ctx.environ) if stored else {}
    return tuple(sets.get(provider.name, keys_from_environment(provider, ctx.environ)))
