"""Early recovery lets targets be asked again at once when a new snapshot brings their provider
other credentials (D3), or a kill switch in favour of them, whatever their circuit breaker or a
pause says.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from harness.domain.providers.credentials import ProviderKey, StoredKey
from harness.domain.routing.kill_switch import SwitchTarget, force_plan
from router.health.provider_keys import ProviderKeys
from router.health.target_health import TargetHealth
from router.snapshot.compiled import CompiledSnapshot, CompiledTarget


@dataclass(frozen=True, slots=True)
class CredentialProof:
    """Holds all that a provider is sent to prove who asks."""

    keys: tuple[ProviderKey, ...]
    # Also a key that was written again as it was, as one does whose account was paid.
    stored: tuple[StoredKey, ...]
    headers: tuple[tuple[str, str], ...] = field(repr=False)


class EarlyRecovery:
    """Belongs to one event loop, as `TargetHealth` does. serving: the snapshot that was
    evaluated last. Each request evaluates one that is new, so that the first finds the circuit
    closed.
    """

    def __init__(self, health: TargetHealth, keys: ProviderKeys) -> None:
        self._health = health
        self._keys = keys
        self.serving: CompiledSnapshot | None = None
        self._proofs: Mapping[str, CredentialProof] = {}
        self._switches: Collection[str] | None = None

    def evaluate(self, serving: CompiledSnapshot) -> None:
        if serving is self.serving:
            return
        self.serving = serving
        before, self._proofs = self._proofs, _proofs(serving)
        thrown = [
            switch
            for switch in serving.snapshot.switches
            if switch.id not in (self._switches or ())
        ]
        known, self._switches = (
            self._switches,
            {switch.id for switch in serving.snapshot.switches},
        )
        self._keys.forget_gone(serving)
        for upstream in _upstreams(serving):
            name = upstream.provider.name
            if name in before and before[name] != self._proofs[name]:
                self._health.renew(upstream.id)
            named = SwitchTarget(upstream.id, upstream.name, upstream.provider.name)
            # Those of the first snapshot were thrown before this process knew anything.
            if known is not None and any(force_plan(one, [named]).in_effect for one in thrown):
                self._health.reopen(upstream.id)


def _proofs(serving: CompiledSnapshot) -> dict[str, CredentialProof]:
    snapshot = serving.snapshot
    return {
        name: CredentialProof(
            tuple(serving.provider_keys.get(name, ())),
            tuple(key for key in snapshot.stored_keys if key.provider == name),
            tuple(sorted(provider.extra_headers.items())),
        )
        for name, provider in snapshot.providers.items()
    }


def _upstreams(serving: CompiledSnapshot) -> Iterable[CompiledTarget]:
    for route in serving.routes.values():
        yield from route.upstreams.values()
        if route.shadow is not None:
            yield route.shadow.upstream
    for literal in serving.literals.values():
        yield from literal.route.upstreams.values()
