"""The values of providers' extra headers: encrypted where they are stored, clear where sent."""

import logging
from dataclasses import replace

from harness.control.context import Context
from harness.domain.errors import DecryptionFailed, SwapgateError
from harness.domain.operations.access import SYSTEM
from harness.domain.routing.table import Snapshot
from harness.domain.routing.target import Provider
from harness.ports import Cipher

headers_log = logging.getLogger(__name__)


def encrypt_headers(provider: Provider, cipher: Cipher) -> Provider:
    """As it is stored: no value of a header in clear. Raises ConfigError without any key."""
    if not provider.extra_headers:
        return provider
    hidden = {name: cipher.encrypt(value) for name, value in provider.extra_headers.items()}
    return replace(
        provider, extra_headers={}, sealed_headers={**provider.sealed_headers, **hidden}
    )


def decrypt_headers(provider: Provider, cipher: Cipher) -> Provider:
    """As it is called. A value that cannot be decrypted is left out, and said in the log."""
    if not provider.sealed_headers:
        return provider
    clear = dict(provider.extra_headers)
    for name, token in provider.sealed_headers.items():
        try:
            clear[name] = cipher.decrypt(token)
        except SwapgateError as error:
            headers_log.error("the header %s of provider %s: %s", name, provider.name, error)
    return replace(provider, extra_headers=clear, sealed_headers={})


def decrypt_snapshot(snapshot: Snapshot, cipher: Cipher) -> Snapshot:
    """For a router's memory, never for its disk."""
    providers = {
        name: decrypt_headers(each, cipher) for name, each in snapshot.providers.items()
    }
    return replace(snapshot, providers=providers)


def reencrypt_headers(provider: Provider, cipher: Cipher) -> Provider:
    """With every value encrypted by the newest key. Raises DecryptionFailed."""
    fresh = {}
    for name, token in provider.sealed_headers.items():
        try:
            fresh[name] = cipher.again(token)
        except DecryptionFailed as error:
            place = f"the header {name!r} of provider {provider.name!r}"
            raise DecryptionFailed(f"{place}: {error}") from None
    return encrypt_headers(replace(provider, sealed_headers=fresh), cipher)


def encrypt_stored_headers(ctx: Context) -> list[str]:
    """Encrypt what an older version stored in clear; the names of those providers.

    Raises ConfigError without any key.
    """
    with ctx.store.read() as tx:
        if not any(each.extra_headers for each in tx.providers.all().values()):
            return []
    done = []
    with ctx.store.write() as tx:
        for each in tx.providers.all().values():
            if not each.extra_headers:
                continue
            tx.providers.put(encrypt_headers(each, ctx.cipher))
            tx.audit.append(
                at=ctx.clock.now(),
                actor=SYSTEM,
                action="provider.seal",
                subject=f"provider {each.name}",
                details={"headers": sorted(each.extra_headers)},
            )
            done.append(each.name)
    return done
