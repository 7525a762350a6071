"""Notices a provider's changed credential, and lets its targets be tried again at once (D3)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.domain.credentials import ProviderKey, StoredKey
from router.health import TargetHealth
from router.provider_keys import ProviderKeys
from router.serving import Serving, Upstream


@dataclass(frozen=True, slots=True)
class Proof:
    """All that a provider is sent to prove who asks. stored: also a key that was written again
    as it was, as one does whose account was paid.
    """

    keys: tuple[ProviderKey, ...]
    stored: tuple[StoredKey, ...]
    headers: tuple[tuple[str, str], ...] = field(repr=False)


class Renewals:
    """Belongs to one event loop, as `TargetHealth` does. look: cheap unless what serves is new,
    so that the first request of a new snapshot already finds the circuit closed.
    """

    def __init__(self, health: TargetHealth, keys: ProviderKeys) -> None:
        self._health = health
        self._keys = keys
        self._seen: Serving | None = None
        self._proofs: Mapping[str, Proof] = {}

    def look(self, serving: Serving) -> None:
        if serving is self._seen:
            return
        self._seen = serving
        before, self._proofs = self._proofs, _proofs(serving)
        self._keys.forget_gone(serving)
        for each in _upstreams(serving):
            name = each.provider.name
            if name in before and before[name] != self._proofs[name]:
                self._health.renew(each.id)


def _proofs(serving: Serving) -> dict[str, Proof]:
    snapshot = serving.snapshot
    return {
        name: Proof(
            tuple(serving.provider_keys.get(name, ())),
            tuple(each for each in snapshot.stored_keys if each.provider == name),
            tuple(sorted(provider.extra_headers.items())),
        )
        for name, provider in snapshot.providers.items()
    }


def _upstreams(serving: Serving) -> Iterable[Upstream]:
    for route in serving.routes.values():
        yield from route.upstreams.values()
        if route.shadow is not None:
            yield route.shadow.upstream
