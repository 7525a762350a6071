"""Reads and replaces the result of each provider's last check; an older one never replaces a
newer.
"""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from harness.domain.providers.probe import ProviderCheck
from harness.store.rules import unknown_provider
from harness.store.schema.providers import (
    provider,
    provider_check,
    provider_check_from_row,
    provider_check_to_row,
)
from harness.store.unit_of_work import Unit

PROVIDER_NAMES = sa.select(provider.c.name)


class SqlProviderChecks:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[ProviderCheck]:
        found = self._unit.read(sa.select(provider_check).order_by(provider_check.c.provider))
        return [provider_check_from_row(row) for row in found]

    def keep(self, checks: Iterable[ProviderCheck]) -> None:
        there = set(self._unit.read(PROVIDER_NAMES).scalars())
        # In one order everywhere: two that write the same rows do not wait for each other.
        for check in sorted(checks, key=lambda one: one.provider):
            if check.provider not in there:
                raise unknown_provider(check.provider)
            values = provider_check_to_row(check)
            if self._unit.write_new(provider_check, values):
                continue
            same = provider_check.c.provider == check.provider
            older = sa.and_(same, provider_check.c.at <= check.at)
            self._unit.write(sa.update(provider_check).where(older).values(values))
