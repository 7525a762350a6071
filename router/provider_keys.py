"""The keys of providers that have several, as this worker knows them. No I/O."""

from collections.abc import Callable

from harness.domain.failures import RULES, FailureClass
from harness.domain.provider_keys import chosen, rest_s, rested
from harness.domain.targets import Provider

# Provider and key; the class of its refusal, None when it is accepted again.
OnKey = Callable[[str, str, FailureClass | None], None]


class ProviderKeys:
    """Keys go by the names of their environment variables. monotonic: seconds.
    on_key: told once when a key is refused, and once when it serves again.

    Belongs to one event loop, as `TargetHealth` does.
    """

    def __init__(self, monotonic: Callable[[], float], on_key: OnKey) -> None:
        self._monotonic = monotonic
        self._on_key = on_key
        self._resting_until: dict[str, dict[str, float]] = {}  # by provider's name
        self._refused: set[tuple[str, str]] = set()

    def key(self, provider: Provider) -> str | None:
        """The one to use now; None for the only one that there is."""
        if not provider.more_api_key_envs:
            return None
        return chosen(provider.key_envs, self._of(provider), self._monotonic())

    def other_left(self, provider: Provider, key: str | None, failure: FailureClass) -> bool:
        """Whether this failure is about the key, and another key may be used."""
        if key is None or not RULES[failure].other_key:
            return False
        able = rested(provider.key_envs, self._of(provider), self._monotonic())
        return any(each != key for each in able)

    def rest(
        self, provider: Provider, key: str | None, failure: FailureClass, told_s: float | None
    ) -> None:
        """Take note of what a key's failure means for the next requests."""
        wait_s = rest_s(failure, told_s)
        if key is None or wait_s is None:
            return
        resting = self._resting_until.setdefault(provider.name, {})
        resting[key] = self._monotonic() + wait_s
        if RULES[failure].alerts and (provider.name, key) not in self._refused:
            self._refused.add((provider.name, key))
            self._on_key(provider.name, key, failure)

    def accepted(self, provider: Provider, key: str | None) -> None:
        if key is not None and (provider.name, key) in self._refused:
            self._refused.remove((provider.name, key))
            self._of(provider).pop(key, None)
            self._on_key(provider.name, key, None)

    def back_in_s(self, provider: Provider) -> float:
        """Seconds until one of several keys may be used again; 0 when one may now."""
        now, resting = self._monotonic(), self._of(provider)
        return max(0.0, min(resting.get(each, now) - now for each in provider.key_envs))

    def _of(self, provider: Provider) -> dict[str, float]:
        return self._resting_until.get(provider.name, {})
