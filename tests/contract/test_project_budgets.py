"""What the client keys of a project may spend together, on both databases, and by several who
make keys at once.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from harness.control.context import Context
from harness.control.operations import keys
from harness.domain.errors import Conflict
from harness.domain.operations.access import SYSTEM, ApiKey
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.reliability.spend import KeySpend
from harness.store.sql import SqlStore
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("G3")


@pytest.fixture
def ctx(tmp_path: Path, database_url: str) -> Iterator[Context]:
    clock = ManualClock()
    store = SqlStore(database_url, secret=SECRET, clock=clock, signatures=CONTROL)
    made = SmallInstallation(tmp_path, store, clock=clock).context()
    yield replace(made, projects=frozenset({"pay", "search"}), project_budgets={"pay": 100.0})
    store.close()


def create(ctx: Context, name: str, usd: float | None, project: str = "pay") -> ApiKey:
    limits = None if usd is None else KeyLimits(budget_month_usd=usd)
    return keys.create_key(ctx, SYSTEM, name, secret=SECRET, limits=limits, project=project)[0]


def spend(ctx: Context, key: ApiKey, usd: float) -> None:
    with ctx.store.write() as tx:
        spent = KeySpend(key.id, ctx.clock.now().date(), "w", 1, 1, usd, 0)
        tx.observations.append([], [], [spent])


def test_keys_of_a_project_never_get_more_together_than_it_has(ctx: Context) -> None:
    first = create(ctx, "web", 60)
    with pytest.raises(Conflict, match=r"may spend \$100.00 a month together, and so .* \$110"):
        create(ctx, "app", 50)
    second = create(ctx, "app", 40)
    with pytest.raises(Conflict):
        keys.set_limits(ctx, SYSTEM, second.id, lambda _: KeyLimits(budget_month_usd=40.01))
    keys.set_limits(ctx, SYSTEM, first.id, lambda _: KeyLimits(budget_month_usd=50))
    keys.set_limits(ctx, SYSTEM, second.id, lambda _: KeyLimits(budget_month_usd=50))
    # Others have their own, or none.
    create(ctx, "web", 1_000, project="search")
    create(ctx, "app", None, project="search")


def test_every_key_of_such_a_project_has_a_budget(ctx: Context) -> None:
    with pytest.raises(Conflict, match="each of its keys needs a `--budget-month`"):
        create(ctx, "web", None)
    key = create(ctx, "web", 10)
    with pytest.raises(Conflict, match="each of its keys"):
        keys.set_limits(ctx, SYSTEM, key.id, lambda _: None or KeyLimits())
    # One from before the project had a budget.
    before = create(replace(ctx, project_budgets={}), "old", None)
    with pytest.raises(Conflict, match="'old'"):
        create(ctx, "app", 10)
    keys.set_limits(ctx, SYSTEM, before.id, lambda _: KeyLimits(budget_month_usd=5))
    create(ctx, "app", 10)


def test_what_a_key_spent_does_not_come_back_with_another(ctx: Context) -> None:
    key = create(ctx, "web", 90)
    spend(ctx, key, 80.0)
    keys.set_limits(ctx, SYSTEM, key.id, lambda _: KeyLimits(budget_month_usd=10))
    with pytest.raises(Conflict):
        create(ctx, "app", 30)
    keys.revoke_key(ctx, SYSTEM, key.id)
    with pytest.raises(Conflict):
        create(ctx, "app", 30)
    create(ctx, "app", 20)


def test_a_new_month_begins_anew(ctx: Context) -> None:
    key = create(ctx, "web", 90)
    spend(ctx, key, 90.0)
    keys.revoke_key(ctx, SYSTEM, key.id)
    clock = ctx.clock
    assert isinstance(clock, ManualClock)
    clock.advance(timedelta(days=32).total_seconds())
    create(ctx, "app", 100)


def test_of_many_keys_made_at_once_no_more_are_made_than_the_budget_has(ctx: Context) -> None:
    def attempt(number: int) -> bool:
        try:
            create(ctx, f"client {number}", 30)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(attempt, range(8)))
    assert sum(made) == 3
