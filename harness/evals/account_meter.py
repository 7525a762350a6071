"""Shares this process's reports on provider accounts with all other processes, so that users
come first (`harness.routing.reliability.users_first`).

A router reports its users' requests. An eval worker reports its own calls. Both report the rate
headers and the 429s of the providers. A killed process loses the report of its last seconds.
"""

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from harness.frame.errors import StoreUnavailable
from harness.frame.people.limits import MINUTE_S
from harness.frame.ports import Clock
from harness.frame.records.database import Database
from harness.routing.records.account_loads import AccountLoads
from harness.routing.reliability.rate_headers import RateReading, read_rates
from harness.routing.reliability.retry import retry_after_s
from harness.routing.reliability.users_first import (
    ROOM_MINUTES,
    AccountLoad,
    AccountState,
    Permit,
    RateReport,
    merge_loads,
    permit_calls,
)

# How often a process reads the reports of other processes, and writes its own urgent reports.
SHARE_EVERY_S: Final = 1.0
# How often a process writes reports that are not urgent.
WRITE_EVERY_S: Final = 5.0
# A process stops reading reports if no call asked for a permit for this long.
IDLE_S: Final = 60.0
# The most models of an account that get a rate report.
MOST_MODELS: Final = 8
LONGEST_PAUSE_S: Final = 600.0


class StoredLoads:
    """Reads and writes the reports, each in a separate transaction."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def read(self, now: datetime) -> Sequence[AccountLoad]:
        with self._store.read() as tx:
            return AccountLoads(tx).recent(now)

    def share(self, loads: Iterable[AccountLoad], now: datetime) -> Sequence[AccountLoad]:
        """Writes reports, and returns the reports of all processes."""
        with self._store.write() as tx:
            AccountLoads(tx).keep(loads, now)
            return AccountLoads(tx).recent(now)


@dataclass(slots=True)
class _Account:
    """This process's report on an account, and whether other processes lack it."""

    load: AccountLoad
    rates: dict[tuple[str, str], RateReport] = field(default_factory=dict)  # by model and kind
    # Monotonic times of calls without a user.
    tests: deque[float] = field(default_factory=deque)
    answered: bool = False
    changed: bool = True


class AccountMeter:
    """Merges all reports into the state of each account. Thread-safe. Only `refresh` waits for
    the database.

    source: a unique name of this process.
    """

    def __init__(self, clock: Clock, source: str) -> None:
        self._clock = clock
        self._source = source
        self._lock = threading.Lock()
        self._own: dict[str, _Account] = {}
        self._others: Mapping[str, Sequence[AccountLoad]] = {}
        self._urgent = False
        self._read_at_s = -math.inf
        self._written_at_s = -math.inf
        self._permit_at_s = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether `refresh` would read or write."""
        return self._clock.monotonic() - self._read_at_s >= SHARE_EVERY_S

    def permit(self, account: str, model: str) -> Permit:
        """Returns the permit for calls without a user, by all reports read so far."""
        with self._lock:
            self._permit_at_s = self._clock.monotonic()
            return permit_calls(
                self._merge_state(account), model, self._clock.now().timestamp()
            )

    def has_answer(self, account: str) -> bool:
        """Returns whether the account has sent this process an answer or a refusal."""
        with self._lock:
            return account in self._own and self._own[account].answered

    def note_call(self, account: str, provider: str) -> None:
        """Notes the start of a call that no user waits for."""
        with self._lock:
            own = self._get_or_add(account, provider)
            own.tests.append(self._clock.monotonic())
            own.changed = True

    def note_answer(
        self,
        account: str,
        provider: str,
        model: str,
        headers: Mapping[str, str],
    ) -> None:
        """Notes the limits that an answer's headers report.

        Args:
            headers: names in lower case.
        """
        now = self._clock.now()
        rates = read_rates(headers, now)
        with self._lock:
            own = self._get_or_add(account, provider)
            own.answered = True
            self._put_rates(own, model, rates, now)

    def note_refusal(
        self,
        account: str,
        provider: str,
        model: str,
        headers: Mapping[str, str],
        *,
        of_user: bool,
    ) -> None:
        """Notes a 429.

        Args:
            of_user: a user waited for the call.

        A 429 of another call counts as a user's if users called the account recently, because
        both share the limit.
        """
        now = self._clock.now()
        rates = read_rates(headers, now)
        pause_s = min(LONGEST_PAUSE_S, retry_after_s(headers, now) or 0.0)
        with self._lock:
            own = self._get_or_add(account, provider)
            own.answered = True
            self._put_rates(own, model, rates, now)
            if of_user or self._merge_state(account).users_seen:
                resume_at = max(own.load.resume_at or now, now + timedelta(seconds=pause_s))
                own.load = replace(own.load, refused_at=now, resume_at=resume_at)
                own.changed = True
                self._urgent = True

    def note_users(
        self,
        account: str,
        provider: str,
        requests_per_min: float,
        tokens_per_min: float,
    ) -> None:
        """Replaces the figures of users' requests and tokens by those of the last minute."""
        with self._lock:
            if not requests_per_min and account not in self._own:
                return
            own = self._get_or_add(account, provider)
            if not requests_per_min and not own.load.users:
                return
            at = self._clock.now() if requests_per_min else own.load.users_at
            own.load = replace(
                own.load, users=requests_per_min, user_tokens=tokens_per_min, users_at=at
            )
            own.changed = True

    def refresh(self, stored: StoredLoads) -> None:
        """Writes new reports and reads the reports of other processes, if they are due. Raises
        StoreUnavailable; then the earlier reports stay in force.
        """
        now_s = self._clock.monotonic()
        if not self.is_due:
            return
        with self._lock:
            loads = self._take_due_loads(now_s)
            is_in_use = now_s - self._permit_at_s < IDLE_S
        now = self._clock.now()
        if loads:
            try:
                all_loads = stored.share(loads, now)
            except StoreUnavailable:
                self._write_again(loads)
                raise
        elif is_in_use:
            all_loads = stored.read(now)
        else:
            return
        others: dict[str, list[AccountLoad]] = {}
        for load in all_loads:
            if load.source != self._source:
                others.setdefault(load.account, []).append(load)
        with self._lock:
            self._others = others
            self._read_at_s = now_s

    def _take_due_loads(self, now_s: float) -> list[AccountLoad]:
        """Returns the changed reports if they are due. The caller holds the lock."""
        every_s = SHARE_EVERY_S if self._urgent or self._have_tests() else WRITE_EVERY_S
        if now_s - self._written_at_s < every_s:
            return []
        loads = [self._build_report(own, now_s) for own in self._own.values() if own.changed]
        for own in self._own.values():
            own.changed = False
        if loads:
            self._written_at_s = now_s
            self._urgent = False
        return loads

    def _write_again(self, loads: Iterable[AccountLoad]) -> None:
        with self._lock:
            for load in loads:
                self._own[load.account].changed = True
            self._urgent = True

    def _have_tests(self) -> bool:
        return any(own.tests for own in self._own.values()) or any(
            load.tests for loads in self._others.values() for load in loads
        )

    def _build_report(self, own: _Account, now_s: float) -> AccountLoad:
        while own.tests and now_s - own.tests[0] > MINUTE_S:
            own.tests.popleft()
        return replace(
            own.load,
            at=self._clock.now(),
            tests=len(own.tests),
            rates=tuple(own.rates.values()),
        )

    def _merge_state(self, account: str) -> AccountState:
        own = self._own.get(account)
        loads = list(self._others.get(account, ()))
        if own is not None:
            loads.append(self._build_report(own, self._clock.monotonic()))
        return merge_loads(loads, self._clock.now().timestamp())

    def _get_or_add(self, account: str, provider: str) -> _Account:
        own = self._own.get(account)
        if own is None:
            load = AccountLoad(account, self._source, provider, self._clock.now())
            own = self._own[account] = _Account(load)
        return own

    def _put_rates(
        self,
        own: _Account,
        model: str,
        rates: Iterable[RateReading],
        now: datetime,
    ) -> None:
        for rate in rates:
            key = model, rate.kind.value
            own.rates.pop(key, None)  # the newest comes last
            own.rates[key] = RateReport(model, now.timestamp(), rate)
            if len(own.rates) > 2 * MOST_MODELS:
                del own.rates[next(iter(own.rates))]
            if rate.remaining <= 2 * ROOM_MINUTES * own.load.users:
                self._urgent = True
            own.changed = True
