"""What routers and eval workers report about the accounts that they call: one row for each
account and process, replaced by its next report. `harness.routing.reliability.users_first`
decides by these rows.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.routing.reliability.users_first import CAUTION_S, AccountLoad

ACCOUNT_LOAD: Final = record(AccountLoad, "account_load", key="account source")

account_load = ACCOUNT_LOAD.table

# Older reports change no decision.
KEPT: Final = timedelta(seconds=CAUTION_S)
_REPLACED: Final = tuple(column.name for column in account_load.c if not column.primary_key)


class AccountLoads(Records[AccountLoad]):
    """The reports of the last KEPT."""

    record = ACCOUNT_LOAD
    order = (account_load.c.account, account_load.c.source)

    def keep(self, loads: Iterable[AccountLoad], now: datetime) -> None:
        """Replaces earlier reports of the same processes, and deletes old reports."""
        # In one order for all writers, so that no two writers wait for each other.
        for load in sorted(loads, key=lambda load: (load.account, load.source)):
            self._tx.upsert(account_load, self.record.write(load), put=_REPLACED)
        self._delete(account_load.c.at < now - KEPT)

    def recent(self, now: datetime) -> Sequence[AccountLoad]:
        return self._all(self._select(account_load.c.at >= now - KEPT))

    def of_providers(self, names: Collection[str], now: datetime) -> Sequence[AccountLoad]:
        """Returns the recent reports about all accounts of these providers, also those of
        other providers with the same accounts.
        """
        recent = self.recent(now)
        accounts = {load.account for load in recent if load.provider in names}
        return [load for load in recent if load.account in accounts]
