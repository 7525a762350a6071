"""The last check of each provider in memory."""

from collections.abc import Iterable, Sequence

from harness.domain.providers.probe import ProviderCheck
from harness.store.memory.state import Unit
from harness.store.rules import unknown_provider


class MemoryProviderChecks:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[ProviderCheck]:
        return [each for _, each in sorted(self._unit.state.provider_checks.items())]

    def keep(self, checks: Iterable[ProviderCheck]) -> None:
        state = self._unit.writing
        for each in checks:
            if each.provider not in state.providers:
                raise unknown_provider(each.provider)
            known = state.provider_checks.get(each.provider, each)
            if known.at <= each.at:
                state.provider_checks[each.provider] = each
