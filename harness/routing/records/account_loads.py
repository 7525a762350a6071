"""Reports of routers and eval workers about the accounts that they call. Each process has one
row for each account, which its next report replaces. `harness.routing.reliability.users_first`
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
KEPT_FOR: Final = timedelta(seconds=CAUTION_S)
_REPLACED: Final = tuple(column.name for column in account_load.c if not column.primary_key)


class AccountLoads(Records[AccountLoad]):
    """Stores the accounts' load. Deletes reports that are older than KEPT_FOR."""

    record = ACCOUNT_LOAD
    order = (account_load.c.account, account_load.c.source)

    def keep(self, loads: Iterable[AccountLoad], now: datetime) -> None:
        """Replaces earlier reports of the same processes, and deletes old reports."""
        # All writers use one order, so that no two writers wait for each other.
        for load in sorted(loads, key=lambda load: (load.account, load.source)):
            self._tx.upsert(account_load, self.record.write(load), put=_REPLACED)
        self._delete(account_load.c.at < now - KEPT_FOR)

    def recent(self, now: datetime) -> Sequence[AccountLoad]:
        return self._all(self._select(account_load.c.at >= now - KEPT_FOR))

    def of_providers(self, names: Collection[str], now: datetime) -> Sequence[AccountLoad]:
        """Returns the recent reports about the accounts of these providers. Includes reports of
        other providers that share an account.
        """
        recent = self.recent(now)
        accounts = {load.account for load in recent if load.provider in names}
        return [load for load in recent if load.account in accounts]
