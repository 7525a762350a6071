"""Finds the accounts whose users make eval runs wait, for alerts and pages.

It decides by the same reports and the same rule as the eval workers
(`harness.routing.reliability.users_first`).
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime

from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.records.transaction import Transaction
from harness.gate.run import RUNNABLE_STATES, EvalRun
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.records.account_loads import AccountLoads
from harness.routing.records.runs import Suites
from harness.routing.reliability.users_first import (
    AccountLoad,
    merge_loads,
    permit_calls,
)


def find_users_turn(
    tx: Transaction,
    runs: Iterable[EvalRun],
    now: datetime,
) -> Mapping[str, str]:
    """Finds the providers whose users come before these runs now.

    Returns provider → the reason why its runs wait.
    """
    waiting = [run for run in runs if run.state in RUNNABLE_STATES and not run.waits_since]
    if not waiting:
        return {}
    targets = {
        target.id: target for run in waiting for target in _load_targets(tx, run) if target
    }
    loads = AccountLoads(tx).of_providers(
        {target.provider for target in targets.values()},
        now,
    )
    reasons: dict[str, str] = {}
    for target in targets.values():
        accounts = {load.account for load in loads if load.provider == target.provider}
        for account in sorted(accounts):
            account_loads = [load for load in loads if load.account == account]
            if reason := _find_reason(account_loads, target.model, now):
                reasons[target.provider] = reason
    return reasons


def describe_users_turn(reasons: Mapping[str, str]) -> str:
    """Describes the result of `find_users_turn` in one line; empty for no provider."""
    return "; ".join(
        f"gives way to callers of {name}: {reason}" for name, reason in reasons.items()
    )


def _find_reason(loads: Iterable[AccountLoad], model: str, now: datetime) -> str:
    state = merge_loads(loads, now.timestamp())
    return permit_calls(state, model, now.timestamp()).reason


def _load_targets(tx: Transaction, run: EvalRun) -> Iterable[Target | None]:
    """Yields a run's target and its suite's judge."""
    yield Targets(tx).get(run.target)
    with suppress(NotFound, SignatureInvalid):
        if judge := Suites(tx).get(run.suite_digest).judge:
            yield Targets(tx).get(judge)
