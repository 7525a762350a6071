from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from evals.suites.configured_suites import ConfiguredSuites
from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame.errors import InputError
from harness.frame.people.access import SYSTEM, OptOut, Role
from harness.frame.people.limits import KeyLimits
from harness.frame.runtime.clock import SystemRandomIds
from harness.frame.signing.audit_log import AuditLog
from harness.operations import keys, queries
from harness.operations.context import Context
from harness.providers.records import Providers
from harness.providers.target import Price
from tests.support.control.midday_clock import MiddayClock
from tests.support.providers.scripted_upstream import (
    Upstream,
    completion,
    running_upstream,
)
from tests.support.router.live_router import (
    SECRET,
    running_router_on,
    wait_until,
)
from tests.support.site.signing_keys import CONTROL
from tests.support.store import records
from tests.support.store.records import OLD, ROUTE

CLOCK = MiddayClock()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        upstream.turns = {OLD.model: completion("hello")}
        yield upstream


@pytest.fixture
def store(database_url: str, upstream: Upstream) -> Iterator[Store]:
    with closing(
        Store(
            database_url,
            secret=SECRET,
            clock=CLOCK,
            signatures=CONTROL,
        )
    ) as store:
        records.seeded(store)
        with store.write() as tx:
            for name in ("sim", "other"):
                # 7 tokens of input and 5 of output: half a dollar.
                prices = {OLD.model: Price(0.0, 100_000.0)}
                made = replace(
                    records.PROVIDER,
                    name=name,
                    api_base=upstream.url,
                    prices=prices,
                )
                Providers(tx).put(made)
        yield store


@pytest.fixture
def ctx(store: Store) -> Context:
    return Context(
        store=store,
        clock=CLOCK,
        chance=SystemRandomIds(),
        suites=ConfiguredSuites({}),
        policies={},
    )


def ask(client: openai.OpenAI) -> dict[str, str]:
    raw = client.chat.completions.with_raw_response.create(
        model=ROUTE, messages=[{"role": "user", "content": "hi"}], user="u"
    )
    return dict(raw.headers)


@pytest.mark.spine
@pytest.mark.req("G3")
def test_what_a_key_opts_out_of_is_signed_served_and_in_the_audit_log(ctx: Context) -> None:
    made, _ = keys.create_key(
        ctx,
        SYSTEM,
        "app",
        secret=SECRET,
        opt_outs=[OptOut.CANARY],
    )
    person, _ = keys.create_key(
        ctx,
        SYSTEM,
        "ann",
        secret=SECRET,
        role=Role.ADMIN,
    )

    keys.set_opt_outs(ctx, SYSTEM, made.id, [OptOut.SHADOW, OptOut.CAPTURE])

    wanted = frozenset({OptOut.SHADOW, OptOut.CAPTURE})
    (grant,) = [key for key in ctx.store.snapshot().keys if key.id == made.id]
    assert grant.opt_outs == wanted
    with ctx.store.read() as tx:
        (event,) = [event for event in AuditLog(tx).tail() if event.action == "key.opt_outs"]
    assert event.details == {
        "before": ["canary"],
        "after": ["capture", "shadow"],
    }
    with pytest.raises(InputError, match="calls no model"):
        keys.set_opt_outs(ctx, SYSTEM, person.id, [OptOut.CANARY])
    assert ctx.store.signature_faults() == []


@pytest.mark.spine
@pytest.mark.req("G3", "G5")
def test_a_budget_counts_what_every_router_of_the_database_spent(
    ctx: Context, store: Store, tmp_path: Path
) -> None:
    key, text = keys.create_key(
        ctx,
        SYSTEM,
        "app",
        secret=SECRET,
        limits=KeyLimits(budget_month_usd=2.5),
    )
    with (
        running_router_on(
            RouterStore(store),
            tmp_path / "one",
            classes=records.CLEARED,
            clock=CLOCK,
        ) as (one_url, *_),
        openai.OpenAI(base_url=f"{one_url}/v1", api_key=text, max_retries=0) as one,
    ):
        for _ in range(4):
            ask(one)
        wait_until(lambda: spent(ctx, key.id) == 2.0)

    with (
        # Also after a restart, and beside another one of another name.
        running_router_on(
            RouterStore(store),
            tmp_path / "two",
            worker="w2",
            classes=records.CLEARED,
            clock=CLOCK,
        ) as (url, _, recorder),
        openai.OpenAI(base_url=f"{url}/v1", api_key=text, max_retries=0) as two,
    ):
        today = ctx.clock.now().date()
        wait_until(lambda: recorder.spent(key.id, today).month_usd == 2.0)
        assert ask(two)["x-swapproof-budget"] == "80%"
        with pytest.raises(openai.RateLimitError) as caught:
            ask(two)
        assert caught.value.code == "insufficient_quota"
        assert caught.value.response.headers["x-should-retry"] == "false"

        keys.set_limits(ctx, SYSTEM, key.id, lambda old: replace(old, budget_month_usd=9))
        wait_until(lambda: accepted(two))
        wait_until(lambda: spent(ctx, key.id) == 3.0)


def spent(ctx: Context, key: str) -> float:
    (found,) = (row for row in queries.list_keys(ctx) if row.id == key)
    return found.spent.month_usd


def accepted(client: openai.OpenAI) -> bool:
    try:
        ask(client)
    except openai.RateLimitError:
        return False
    return True
