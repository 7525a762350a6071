"""Chooses among a provider's keys: a refused key rests while another key is left.

A key rests for one model, such as after a rate limit, or for all, such as after a 401.
`harness.providers.credential` decides how long. With a single key there is no choice, so its
targets' circuit breakers act instead (`target_health`). Logs and alerts get a key's name,
never the key.
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
_ALL_MODELS: Final = ""


class ProviderKeys:
    """Chooses keys, for one event loop.

    on_key: called if a key is refused for a reason that a person must end, or works again.
    """

    def __init__(self, monotonic: Callable[[], float], on_key: OnKey) -> None:
        self._monotonic = monotonic
        self._on_key = on_key
        # By provider's name: until when a key rests, for one model or for all (`_ALL_MODELS`).
        self._resting_until: dict[str, dict[tuple[ProviderKey, str], float]] = {}
        # refused: the keys that a provider refuses now, by its name
        self.refused: set[tuple[str, ProviderKey]] = set()
        self._serving_keys: ProviderKeySets = NO_KEYS

    def key(self, upstream: CompiledTarget) -> ProviderKey | None:
        """Returns the key for the next attempt; None if the provider needs none.

        That is the first key that does not rest. If all rest, it is the key whose rest ends
        first.
        """
        if len(upstream.keys) < SEVERAL:
            return upstream.only_key
        if not self._resting_until.get(upstream.provider.name):
            return upstream.keys[0]
        return choose_key(upstream.keys, self._find_resting(upstream), self._monotonic())

    def next_key(
        self, upstream: CompiledTarget, refused: ProviderKey | None
    ) -> ProviderKey | None:
        """Returns the next key after a refused one, which need not rest."""
        usable = self._list_usable(upstream)
        return next((key for key in usable if key != refused), self.key(upstream))

    def has_other_key(
        self,
        upstream: CompiledTarget,
        key: ProviderKey | None,
        reach: Reach,
    ) -> bool:
        """Returns whether another key of the provider may succeed where this one failed."""
        if len(upstream.keys) < SEVERAL or not reach.is_of_key:
            return False
        return any(usable != key for usable in self._list_usable(upstream))

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
        model = _ALL_MODELS if refusal.reach.is_of_account else upstream.target.model
        resting[key, model] = self._monotonic() + wait_s
        alerts = FAILURE_RULES[refusal.failure].alerts
        if alerts and (provider, key) not in self.refused:
            self.refused.add((provider, key))
            self._on_key(provider, key.name, refusal)

    def note_accepted(self, upstream: CompiledTarget, key: ProviderKey | None) -> None:
        """Ends a key's rest and its alert, because an attempt with it succeeded."""
        provider = upstream.provider.name
        resting = self._resting_until.get(provider)
        if key is None or not resting:
            return
        resting.pop((key, upstream.target.model), None)
        resting.pop((key, _ALL_MODELS), None)
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
        return (
            key is not None
            and name in self._serving_keys
            and key not in self._serving_keys[name]
        )

    def forget_removed(self, serving: CompiledSnapshot) -> None:
        """Notes a snapshot's keys, and ends the rests and alerts of keys that it does not
        have.
        """
        self._serving_keys = serving.provider_keys
        present = {
            (name, key)
            for name, provider_keys in serving.provider_keys.items()
            for key in provider_keys
        }
        for provider, key in self.refused - present:
            self.refused.remove((provider, key))
            self._on_key(provider, key.name, None)
        for provider, resting in self._resting_until.items():
            for place in [place for place in resting if (provider, place[0]) not in present]:
                del resting[place]

    def back_in_s(self, upstream: CompiledTarget) -> float:
        """Returns the seconds until one of several keys may be used again; 0 for now."""
        now = self._monotonic()
        resting = self._find_resting(upstream)
        return max(0.0, min(resting.get(key, now) - now for key in upstream.keys))

    def _list_usable(self, upstream: CompiledTarget) -> tuple[ProviderKey, ...]:
        return rested_keys(upstream.keys, self._find_resting(upstream), self._monotonic())

    def _find_resting(self, upstream: CompiledTarget) -> dict[ProviderKey, float]:
        """Returns until when each resting key rests for the target's model."""
        until_by_key: dict[ProviderKey, float] = {}
        model = upstream.target.model
        for (key, model_name), until in self._resting_until.get(
            upstream.provider.name, {}
        ).items():
            if model_name in (_ALL_MODELS, model):
                until_by_key[key] = max(until, until_by_key.get(key, until))
        return until_by_key


@dataclass(frozen=True, slots=True, repr=False)  # it contains secrets
class CredentialProof:
    """The parts of a provider's configuration that may end a refusal of its keys, to
    compare revisions.
    """

    keys: tuple[ProviderKey, ...]
    # These also change if a person stores the same key again, perhaps after paying the account.
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
        self._proofs = _collect_proofs(serving)
        new_switches = [
            switch
            for switch in serving.snapshot.switches
            if switch.id not in (self._switches or ())
        ]
        known_switches = self._switches
        self._switches = {switch.id for switch in serving.snapshot.switches}
        self._keys.forget_removed(serving)
        for upstream in _iter_targets(serving):
            name = upstream.provider.name
            if name in before and before[name] != self._proofs[name]:
                self._health.renew(upstream.id)
            # Ignore the first snapshot's switches: they are older than this process.
            if known_switches is not None and any(
                force_plan(switch, [upstream.target]).in_effect for switch in new_switches
            ):
                self._health.reopen(upstream.id)


def _collect_proofs(serving: CompiledSnapshot) -> dict[str, CredentialProof]:
    snapshot = serving.snapshot
    return {
        name: CredentialProof(
            tuple(serving.provider_keys.get(name, ())),
            tuple(key for key in snapshot.stored_keys if key.provider == name),
            tuple(sorted(provider.extra_headers.items())),
        )
        for name, provider in snapshot.providers.items()
    }


def _iter_targets(serving: CompiledSnapshot) -> Iterable[CompiledTarget]:
    for route in serving.routes.values():
        yield from route.upstreams.values()
        if route.shadow is not None:
            yield route.shadow.upstream
    for literal in serving.literals.values():
        yield from literal.route.upstreams.values()
