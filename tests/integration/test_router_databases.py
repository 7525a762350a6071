"""The router on a real database, SQLite and PostgreSQL: hot reload, keys, observations."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import openai
import pytest

from harness.domain.operations.access import key_hash
from harness.domain.proposals.policy import CanaryStep
from harness.domain.routing.route_changes import AbortCanary, RaiseWeight
from harness.runtime.clock import SystemClock
from harness.store.sql import SqlStore
from tests.support.providers.scripted_upstream import (
    Upstream,
    completion,
    error,
    running_upstream,
)
from tests.support.router.live_router import KEY, SECRET, running_router_on, wait_until
from tests.support.site.signing_keys import CONTROL
from tests.support.store import records
from tests.support.store.records import NEW, NOW, OLD, ROUTE

EVER = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        yield upstream


@pytest.fixture
def store(database_url: str, upstream: Upstream) -> Iterator[SqlStore]:
    with closing(
        SqlStore(database_url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)
    ) as store:
        steps = (CanaryStep(100, 10), CanaryStep(10_000, 10, certify=True))
        canary = replace(records.POLICY.canary, steps=steps)
        records.seeded(store, replace(records.POLICY, canary=canary))
        with store.write() as tx:
            for name in ("sim", "other"):
                provider = replace(records.PROVIDER, name=name, api_base=upstream.url)
                tx.providers.put(provider)
            tx.rollouts.add(records.rollout())
            hashed = key_hash(KEY, SECRET)
            tx.keys.add(replace(records.KEY, hash=hashed, routes=frozenset()))
        yield store


def ask(url: str, user: str = "u") -> tuple[str, str]:
    """The answer's text and its arm."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=ROUTE, messages=[{"role": "user", "content": "hi"}], user=user
        )
    return raw.parse().choices[0].message.content or "", raw.headers["x-swapgate-arm"]


@pytest.mark.req("F1", "F3", "F4")
def test_a_canary_comes_fails_is_charged_and_goes_without_a_restart(
    store: SqlStore, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.turns = {OLD.model: completion("old"), NEW.model: completion("new")}
    with running_router_on(store, tmp_path, classes=records.CLEARED) as (url, holder, _):

        def arrived(revision: int) -> None:
            wait_until(lambda: holder.current and holder.current.revision >= revision)

        assert ask(url) == ("old", "incumbent")

        with store.write() as tx:
            records.start_canary(tx)
            change = RaiseWeight(ROUTE, "ro_1", 10_000)
            arrived_at = tx.routing.commit(
                change, expected_version=2, actor="a", reason="r", now=NOW
            )
        arrived(arrived_at)
        assert ask(url) == ("new", "canary")

        upstream.turns[NEW.model] = error(500)
        assert ask(url, "another") == ("old", "canary")

        with store.write() as tx:
            arrived_at = tx.routing.commit(
                AbortCanary(ROUTE, "ro_1"), expected_version=3, actor="a", reason="r", now=NOW
            )
        arrived(arrived_at)
        assert ask(url) == ("old", "incumbent")

    with store.read() as tx:
        (block,) = tx.observations.blocks("ro_1")
        traffic = tx.observations.traffic(since=EVER, route=ROUTE)
    assert (block.units, block.canary_units, block.failures) == (2, 2, 1)
    assert (block.weight_bps, block.missing) == (10_000, 0)
    assert sum(row.requests for row in traffic) == 4
    assert sum(row.charged for row in traffic if row.arm == "canary") == 1
    assert {row.target for row in traffic if row.arm == "incumbent"} == {OLD.id}


def test_a_revoked_key_opens_nothing_soon_after(
    store: SqlStore, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.turns = {OLD.model: completion("old")}
    with running_router_on(store, tmp_path, classes=records.CLEARED) as (url, holder, _):
        assert ask(url)[0] == "old"

        with store.write() as tx:
            tx.keys.revoke(records.KEY.id, NOW)
        wait_until(lambda: holder.current and not holder.current.grants)

        with pytest.raises(openai.AuthenticationError):
            ask(url)
