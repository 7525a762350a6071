"""Chooses among a provider's keys: a refused key rests while another is left.

A key rests for one model, such as after a rate limit, or for all, such as after a 401. How long
a key rests is decided in `harness.providers.credential`. With a single key there is no choice,
so its targets' circuit breakers act instead (`target_health`). No key leaves this module in a
log or an alert: only its name does.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.frame.failures import FAILURE_RULES, Reach
from harness.providers.credential import (
    ProviderKey,
    ProviderKeySets,
    StoredKey,
    choose_key,
    key_rest_s,
    rested_keys,
)
from harness.providers.force import force_plan
from router.frame.failure import UpstreamFailed
from router.health.target_health import TargetHealth
from router.snapshot.compiled import (
    NO_KEYS,
    CompiledSnapshot,
    CompiledTarget,
)

# Names of provider and key; the refusal, or None when the key works again.
OnKey = Callable[[str, str, UpstreamFailed | None], None]
SEVERAL: Final = 2
_ALL: Final = ""


class ProviderKeys:
    """Chooses keys, for one event loop.

    on_key: called if a key is refused for a reason that a person must end, or works again.
    """

    def __init__(self, monotonic: Callable[[], float], on_key: OnKey) -> None:
        self._monotonic = monotonic
        self._on_key = on_key
        # By provider's name: until when a key rests, for one model or for all (`_ALL`).
        self._resting_until: dict[str, dict[tuple[ProviderKey, str], float]] = {}
        # refused: the keys that a provider refuses now, by its name
        self.refused: set[tuple[str, ProviderKey]] = set()
        self._there: ProviderKeySets = NO_KEYS

    def key(self, upstream: CompiledTarget) -> ProviderKey | None:
        """Returns the key for the next attempt; None if the provider needs none.

        The first key that does not rest is used. If all rest, the one that rests shortest
        is.
        """
        if len(upstream.keys) < SEVERAL:
            return upstream.only_key
        if not self._resting_until.get(upstream.provider.name):
            return upstream.keys[0]
        return choose_key(upstream.keys, self._resting_keys(upstream), self._monotonic())

    def other(
        self, upstream: CompiledTarget, refused: ProviderKey | None
    ) -> ProviderKey | None:
        """Returns the next key after a refused one, which need not rest."""
        able = self._able(upstream)
        return next((key for key in able if key != refused), self.key(upstream))

    def has_other_key(
        self,
        upstream: CompiledTarget,
        key: ProviderKey | None,
        reach: Reach,
    ) -> bool:
        """Returns whether another key of the provider may succeed where this one failed."""
        if len(upstream.keys) < SEVERAL or not reach.is_of_key:
            return False
        return any(name != key for name in self._able(upstream))

    def rest(
        self,
        upstream: CompiledTarget,
        key: ProviderKey | None,
        refusal: UpstreamFailed,
        retry_after_s: float | None,
    ) -> None:
        """Lets a refused or limited key rest.

        If a provider has only one key, its targets rest instead.
        """
        wait_s = key_rest_s(refusal.failure, refusal.reach, retry_after_s)
        if key is None or wait_s is None or len(upstream.keys) < SEVERAL:
            return
        provider = upstream.provider.name
        resting = self._resting_until.setdefault(provider, {})
        model = _ALL if refusal.reach.is_of_account else upstream.target.model
        resting[key, model] = self._monotonic() + wait_s
        alerts = FAILURE_RULES[refusal.failure].alerts
        if alerts and (provider, key) not in self.refused:
            self.refused.add((provider, key))
            self._on_key(provider, key.name, refusal)

    def accepted(self, upstream: CompiledTarget, key: ProviderKey | None) -> None:
        """Ends a key's rest and its alert, because an attempt with it succeeded."""
        provider = upstream.provider.name
        resting = self._resting_until.get(provider)
        if key is None or not resting:
            return
        resting.pop((key, upstream.target.model), None)
        resting.pop((key, _ALL), None)
        if (provider, key) in self.refused:
            self.refused.remove((provider, key))
            self._on_key(provider, key.name, None)

    def end_rests(self, upstream: CompiledTarget) -> None:
        """Makes all keys usable again for the target's model, because its rate limit concerned
        large requests only.
        """
        resting = self._resting_until.get(upstream.provider.name, {})
        for key in upstream.keys:
            resting.pop((key, upstream.target.model), None)

    def is_removed(self, upstream: CompiledTarget, key: ProviderKey | None) -> bool:
        """Returns whether the serving snapshot no longer has this key."""
        name = upstream.provider.name
        return key is not None and name in self._there and key not in self._there[name]

    def forget_gone(self, serving: CompiledSnapshot) -> None:
        """Notes a snapshot's keys, and ends the rests and alerts of keys that it does not
        have.
        """
        self._there = serving.provider_keys
        there = {(name, key) for name, own in serving.provider_keys.items() for key in own}
        for provider, key in self.refused - there:
            self.refused.remove((provider, key))
            self._on_key(provider, key.name, None)
        for provider, resting in self._resting_until.items():
            for place in [place for place in resting if (provider, place[0]) not in there]:
                del resting[place]

    def back_in_s(self, upstream: CompiledTarget) -> float:
        """Returns the seconds until one of several keys may be used again; 0 for now."""
        now = self._monotonic()
        resting = self._resting_keys(upstream)
        return max(0.0, min(resting.get(key, now) - now for key in upstream.keys))

    def _able(self, upstream: CompiledTarget) -> tuple[ProviderKey, ...]:
        return rested_keys(upstream.keys, self._resting_keys(upstream), self._monotonic())

    def _resting_keys(self, upstream: CompiledTarget) -> dict[ProviderKey, float]:
        """Returns until when each resting key rests for the target's model."""
        found: dict[ProviderKey, float] = {}
        model = upstream.target.model
        for (key, about), until in self._resting_until.get(upstream.provider.name, {}).items():
            if about in (_ALL, model):
                found[key] = max(until, found.get(key, until))
        return found


@dataclass(frozen=True, slots=True, repr=False)  # it contains secrets
class CredentialProof:
    """The parts of a provider's configuration that may end a refusal of its keys, to
    compare revisions.
    """

    keys: tuple[ProviderKey, ...]
    # If somebody stores the same key again, this changes, too: perhaps the account was paid.
    stored: tuple[StoredKey, ...]
    headers: tuple[tuple[str, str], ...]


class EarlyRecovery:
    """Ends a target's pause when its provider's keys or headers change, or a switch selects it.

    serving: the last evaluated snapshot; each request compares it.
    """

    def __init__(self, health: TargetHealth, keys: ProviderKeys) -> None:
        self._health = health
        self._keys = keys
        self.serving: CompiledSnapshot | None = None
        self._proofs: Mapping[str, CredentialProof] = {}
        self._switches: Collection[str] | None = None

    def evaluate(self, serving: CompiledSnapshot) -> None:
        """Admits targets again whose provider's keys or headers changed, or that a new
        switch selects.

        Does nothing if the snapshot was evaluated before. The first snapshot of a process
        changes no target.
        """
        if serving is self.serving:
            return
        self.serving = serving
        before = self._proofs
        self._proofs = _proofs(serving)
        thrown = [
            switch
            for switch in serving.snapshot.switches
            if switch.id not in (self._switches or ())
        ]
        known = self._switches
        self._switches = {switch.id for switch in serving.snapshot.switches}
        self._keys.forget_gone(serving)
        for upstream in _upstreams(serving):
            name = upstream.provider.name
            if name in before and before[name] != self._proofs[name]:
                self._health.renew(upstream.id)
            # Ignore the first snapshot's switches: they are older than this process.
            if known is not None and any(
                force_plan(switch, [upstream.target]).in_effect for switch in thrown
            ):
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
