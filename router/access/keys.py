"""Who calls: the data key of a request, against the snapshot's grants."""

import hmac
from collections import OrderedDict
from typing import Final

from harness.domain.operations.access import key_hash
from harness.domain.routing.table import KeyGrant
from router.snapshot.compiled import CompiledSnapshot

CACHED_KEYS: Final = 4096
_SCHEME: Final = b"bearer "


class KeyRing:
    """Finds a key's grant. secret: the server's, under which keys are hashed.

    Hashes of accepted keys are remembered, so that a request costs a look-up and no HMAC; the
    grants are always the current snapshot's.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._hashes: OrderedDict[bytes, str] = OrderedDict()

    def grant(self, authorization: bytes | None, serving: CompiledSnapshot) -> KeyGrant | None:
        """None: no key, another scheme, or a key that opens nothing."""
        if authorization is None or authorization[:7].lower() != _SCHEME:
            return None
        return self.grant_of(authorization[7:], serving)

    def grant_of(self, bare: bytes | None, serving: CompiledSnapshot) -> KeyGrant | None:
        """As `grant`, of a key that stands alone in its header."""
        if bare is None:
            return None
        key = bare.strip()
        known = self._hashes.get(key)
        hashed = known or key_hash(key.decode("latin-1"), self._secret)
        grant = serving.grants.get(hashed)
        if grant is None or not hmac.compare_digest(grant.hash.encode(), hashed.encode()):
            self._hashes.pop(key, None)
            return None
        if known is None:
            self._remember(key, hashed)
        return grant

    def _remember(self, key: bytes, hashed: str) -> None:
        self._hashes[key] = hashed
        if len(self._hashes) > CACHED_KEYS:
            self._hashes.popitem(last=False)


def is_route_allowed(grant: KeyGrant, route: str) -> bool:
    return not grant.routes or route in grant.routes
