"""Limits the concurrent background calls of an account, so that users of the same account keep
their share of its rate limit. No user waits for a background call. Pure.

An account is a provider's address with one key: its limits count all calls with that key.
Evals, judges, drift checks, rounds of candidates, shadows and health checks obey this one rule.
The routers report users' requests and the provider's headers; `harness.evals.account_meter`
shares the reports. Times are Unix seconds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from harness.frame.formatting import format_quantity
from harness.frame.people.limits import MINUTE_S
from harness.frame.plain_data import short_hash
from harness.routing.reliability.rate_headers import RateKind, RateReading

# After a user's 429, only one background call runs at a time for this long.
CAUTION_S: Final = 600.0
# The other calls grow in number only while the rest exceeds this many of the users' minutes.
ROOM_MINUTES: Final = 2.0
# A provider may renew its limit at once, or continuously. The reserve for users is their need
# until it is renewed, or this share of their minute if that time is unknown: calls in turn take
# half the users' rate at most, so a limit of 4/3 of the users' minute suffices for both.
RESERVE_SHARE: Final = 1 / 3
# Shares of a known limit for users who pause and come back.
ROOM_OF_LIMIT: Final = 0.1
RESERVE_OF_LIMIT: Final = 0.05
# In turn, one call starts while users send this many.
USERS_PER_CALL: Final = 2.0
LONGEST_GAP_S: Final = 10.0
SHORTEST_RENEWAL_S: Final = 1.0
MOST_CALLS: Final = 256
# A report of users' requests counts as their last minute up to this age.
FRESH_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class RateReport:
    """A limit's rest, as the headers of a model's answer reported it at a time."""

    model: str
    at: float
    rate: RateReading


@dataclass(frozen=True, slots=True)
class AccountState:
    """The known facts about an account.

    per_min: users' requests and tokens in the last minute; a missing kind is unknown.
    users_seen: users called the account in the last CAUTION_S.
    refused_at: the last 429 of a user. resume_at: until when the provider asked to wait.
    """

    rates: tuple[RateReport, ...] = ()
    per_min: Mapping[RateKind, float] = field(default_factory=dict)
    users_seen: bool = False
    refused_at: float | None = None
    resume_at: float = 0.0


class Permit(NamedTuple):
    """The limits of background calls at this moment.

    calls: how many may be in progress at once, over all processes; 0 if none may begin.
    gap_s: the least time between the starts of two calls.
    wait_s: until a call may begin, unless a newer report allows it earlier.
    reason: names the users as the cause of a limit; empty if they are not.
    """

    calls: int
    gap_s: float = 0.0
    wait_s: float = 0.0
    reason: str = ""


FREE: Final = Permit(MOST_CALLS)
# While the rest of a limit is unknown, one call at a time reads it.
ONE_CALL: Final = Permit(1)


def account_of(api_base: str, secret: str) -> str:
    """Returns the id of an account; providers with the same address and key share it.

    The result is a one-way hash, because it is stored and the key is a secret.
    """
    return short_hash(f"{api_base.rstrip('/')}\0{secret}", 12).hex()


def permit_calls(state: AccountState, model: str, now: float) -> Permit:
    """Returns the strictest permit of all limits and refusals of an account.

    Args:
        model: the called model, because some providers have limits for each model.
    """
    permits = [FREE, *_permits_after_refusal(state, now)]
    newest = _newest_rates(state.rates, model)
    rate_permits = [
        permit for report in newest for permit in _permits_of_rate(state, report, now)
    ]
    if newest and not rate_permits:
        permits.append(ONE_CALL)
    permits += rate_permits
    strictest = min(permits, key=lambda permit: (permit.calls, not permit.reason))
    return strictest._replace(
        gap_s=max(permit.gap_s for permit in permits),
        wait_s=max(permit.wait_s for permit in permits),
    )


def _permits_after_refusal(state: AccountState, now: float) -> Iterator[Permit]:
    if state.resume_at > now:
        yield Permit(
            0,
            wait_s=state.resume_at - now,
            reason="the provider refused a caller's request (429) and asked for a pause",
        )
    if state.refused_at is not None and now - state.refused_at < CAUTION_S:
        yield _permit_single_calls(state, "the provider refused a caller's request (429)")


def _newest_rates(rates: Iterable[RateReport], model: str) -> list[RateReport]:
    """Returns the newest report of each kind: of this model, and of any model."""
    newest: dict[tuple[RateKind, bool], RateReport] = {}
    for report in rates:
        for key in ((report.rate.kind, False), (report.rate.kind, True)):
            is_other = key[1] and report.model != model
            if not is_other and (key not in newest or _is_newer(report, newest[key])):
                newest[key] = report
    return list(newest.values())


def _is_newer(report: RateReport, known: RateReport) -> bool:
    return (report.at, -report.rate.remaining) > (known.at, -known.rate.remaining)


def _permits_of_rate(state: AccountState, report: RateReport, now: float) -> Iterator[Permit]:
    """Yields the permit that one report gives; nothing if the report is too old."""
    rate = report.rate
    age_s = now - report.at
    users = state.per_min.get(rate.kind, 0.0)
    limit = (rate.limit or 0.0) if state.users_seen else 0.0
    room = rate.remaining - max(ROOM_MINUTES * users, ROOM_OF_LIMIT * limit)
    if age_s > MINUTE_S:
        return
    if room > 0:
        yield Permit(max(1, min(MOST_CALLS, int(room))))
        return
    renewal_s = MINUTE_S if rate.reset_s is None else min(MINUTE_S, rate.reset_s)
    left_s = max(SHORTEST_RENEWAL_S, renewal_s) - age_s
    if left_s <= 0:
        return
    need = RESERVE_SHARE if rate.reset_s is None else left_s / MINUTE_S
    reserve = max(need * users, RESERVE_OF_LIMIT * limit)
    remaining_text = format_quantity(int(rate.remaining), rate.kind.value.removesuffix("s"))
    reason = (
        f"{remaining_text} were left of the account's limit, and callers sent {users:,.0f} in "
        "a minute"
    )
    if rate.remaining <= reserve:
        yield Permit(0, wait_s=left_s, reason=reason if state.users_seen else "")
    else:
        yield _permit_single_calls(state, reason)


def _permit_single_calls(state: AccountState, reason: str) -> Permit:
    """Permits one call at a time, and at most one call for each USERS_PER_CALL requests of
    users.
    """
    users = state.per_min.get(RateKind.REQUESTS, 0.0)
    gap_s = MINUTE_S * USERS_PER_CALL / users if users > 0 else LONGEST_GAP_S
    return Permit(1, min(LONGEST_GAP_S, gap_s), reason=reason)


@dataclass(frozen=True, slots=True)
class AccountLoad:
    """One process's report about an account. A router reports users, an eval worker tests."""

    account: str
    source: str  # the process
    provider: str  # the provider's name
    at: datetime
    users: float = 0.0  # users' requests in the minute before `at`
    user_tokens: float = 0.0  # of these requests
    users_at: datetime | None = None  # when a user last called the account
    tests: int = 0  # calls of evals and judges in the minute before `at`
    refused_at: datetime | None = None  # see `AccountState`
    resume_at: datetime | None = None
    rates: tuple[RateReport, ...] = ()


def merge_loads(loads: Iterable[AccountLoad], now: float) -> AccountState:
    """Merges the reports of all processes about one account."""
    all_loads = list(loads)
    fresh_loads = [load for load in all_loads if now - load.at.timestamp() <= FRESH_S]
    users_at = [load.users_at.timestamp() for load in all_loads if load.users_at]
    return AccountState(
        rates=tuple(
            report
            for load in all_loads
            for report in load.rates
            if now - report.at <= CAUTION_S
        ),
        per_min={
            RateKind.REQUESTS: sum(load.users for load in fresh_loads),
            RateKind.TOKENS: sum(load.user_tokens for load in fresh_loads),
        },
        users_seen=any(now - at <= CAUTION_S for at in users_at),
        refused_at=max(
            (load.refused_at.timestamp() for load in all_loads if load.refused_at), default=None
        ),
        resume_at=max(
            (load.resume_at.timestamp() for load in all_loads if load.resume_at), default=0.0
        ),
    )
