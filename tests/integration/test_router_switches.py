"""The kill switch over HTTP: thrown and lifted in the database, seen by a running router."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import openai
import pytest

from harness.control.context import Context
from harness.control.routing import kill_switch
from harness.control.routing.kill_switch import SwitchRequest
from harness.domain.operations.access import Actor, ApiKey, Role, key_hash
from harness.domain.routing.kill_switch import KillSwitch, SwitchSource, parse_force
from harness.domain.routing.route_changes import CreateRoute
from harness.domain.routing.table import Snapshot
from harness.domain.routing.target import Target
from harness.runtime.clock import SystemClock
from harness.runtime.random_ids import SystemRandomIds
from harness.store.store import Store
from router.snapshot import file
from router.snapshot.holder import SnapshotHolder
from tests.support.providers.scripted_upstream import Upstream, completion, running_upstream
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    KEY,
    SECRET,
    provider,
    running_router_on,
    served,
    snapshot,
    wait_until,
)
from tests.support.site.signing_keys import CONTROL

ADA = Actor("ada", Role.APPROVER, "pr_ada")
CLOCK = SystemClock()


class Served(NamedTuple):
    target: str
    switch: str


@dataclass
class Running:
    url: str
    ctx: Context
    holder: SnapshotHolder

    def ask(self, route: str = "support") -> Served:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0) as client:
            raw = client.chat.completions.with_raw_response.create(
                model=route, messages=[{"role": "user", "content": "hi"}]
            )
        headers = raw.headers
        return Served(headers["x-swapgate-target"], headers.get("x-swapgate-switch", ""))

    def throw(self, force: str, **more: object) -> KillSwitch:
        wanted = SwitchRequest(parse_force(force), "a drill", **more)  # type: ignore[arg-type]  # a test's own
        made = kill_switch.throw_switch(self.ctx, ADA, wanted, source=SwitchSource.CLI)
        self.wait()
        return made

    def lift(self, switch: KillSwitch) -> None:
        kill_switch.lift_switch(self.ctx, ADA, switch.id, reason="over")
        self.wait()

    def wait(self) -> None:
        """Until the router has what the database says; it has two seconds."""
        etag = self.ctx.store.etag()
        wait_until(lambda: self.holder.current and self.holder.current.etag == etag)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        upstream.turns = {name: completion(name) for name in (INCUMBENT, FALLBACK, CANDIDATE)}
        yield upstream


def fill(store: Store, url: str) -> None:
    """Two routes: `support` may fall back on another provider, `other` may not."""
    incumbent, spare = Target("up", INCUMBENT), Target("backup", FALLBACK)
    with store.write() as tx:
        for name in ("up", "backup", "elsewhere"):
            tx.providers.put(provider(url, name))
        for target in (incumbent, spare):
            tx.routing.add_target(target)
        for name, fallbacks in (("support", (spare.id,)), ("other", ())):
            tx.routing.commit(
                CreateRoute(name, incumbent.id, fallbacks),
                expected_version=0,
                actor="ada",
                reason="a test",
                now=CLOCK.now(),
            )
        hashed = key_hash(KEY, SECRET)
        tx.keys.add(ApiKey("k", "test", hashed, "good", None, frozenset(), CLOCK.now()))


@contextmanager
def running(database_url: str, upstream: Upstream, folder: Path) -> Iterator[Running]:
    store = Store(database_url, secret=SECRET, clock=CLOCK, signatures=CONTROL)
    ours = Store(database_url, secret=SECRET, clock=CLOCK, signatures=CONTROL)
    fill(ours, upstream.url)
    ctx = Context(ours, CLOCK, SystemRandomIds(), suites=None, policies={})  # type: ignore[arg-type]  # no suites here
    try:
        with running_router_on(store, folder) as (url, holder, _):
            yield Running(url, ctx, holder)
    finally:
        store.close()
        ours.close()


@pytest.mark.req("B11")
def test_a_switch_adds_no_target_that_a_route_has_no_evidence_for(
    sqlite_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    with running(sqlite_url, upstream, tmp_path) as router:
        thrown = router.throw("provider:backup")
        told = f"{thrown.id}; provider:backup; not_in_effect"
        assert router.ask("other") == Served(f"up/{INCUMBENT}", told)
        router.lift(thrown)

        nowhere = router.throw("provider:elsewhere")
        told = f"{nowhere.id}; provider:elsewhere; not_in_effect"
        assert router.ask() == Served(f"up/{INCUMBENT}", told)

        auth = {"authorization": f"Bearer {KEY}"}
        metrics = httpx.get(f"{router.url}/metrics", headers=auth).text
        assert "swapgate_router_switch_not_in_effect_total 2.0" in metrics


async def ask_router(door: Door) -> Served:
    _, headers, _ = await door.call(CHAT, ASK)
    target = headers[b"x-swapgate-target"].decode()
    return Served(target, headers.get(b"x-swapgate-switch", b"").decode())


def with_switches(*switch: KillSwitch, **more: object) -> Snapshot:
    made = snapshot("http://127.0.0.1:1/v1", fallback=True, **more)  # type: ignore[arg-type]  # as there
    return replace(made, switches=switch)


def thrown(door: Door, **more: object) -> KillSwitch:
    switch = KillSwitch(
        id="sw_1",
        route=None,
        force=parse_force(f"target:up/{FALLBACK}"),
        reason="a drill",
        actor="ada",
        created_at=door.clock.now(),
        expires_at=None,
        source=SwitchSource.CLI,
    )
    return replace(switch, **more)  # type: ignore[arg-type]  # a test's own fields


@pytest.mark.req("B11")
async def test_a_switch_expires_with_nobody_looking_and_no_database(tmp_path: Path) -> None:
    door = Door(tmp_path)
    expires_at = door.clock.now() + timedelta(hours=2)
    door.holder.current = served(with_switches(thrown(door, expires_at=expires_at)))
    door.kept.away = True

    assert (await ask_router(door)).target == f"up/{FALLBACK}"
    door.clock.advance(2 * 3600)
    assert await ask_router(door) == Served(f"up/{INCUMBENT}", "")


@pytest.mark.req("B11")
async def test_a_target_that_is_avoided_is_out_and_its_chain_answers(tmp_path: Path) -> None:
    door = Door(tmp_path)
    force = parse_force(f"avoid:target:up/{INCUMBENT}")
    door.holder.current = served(with_switches(thrown(door, force=force)))

    told = f"sw_1; avoid:target:up/{INCUMBENT}; in_effect"
    assert await ask_router(door) == Served(f"up/{FALLBACK}", told)


@pytest.mark.req("B11")
async def test_requests_under_a_switch_are_no_evidence_about_a_canary(tmp_path: Path) -> None:
    door = Door(tmp_path)
    forced = with_switches(thrown(door), weight_bps=10_000)
    for serving in (served(forced), served(replace(forced, switches=()))):
        door.holder.current = serving
        await ask_router(door)

    door.recorder.flush(final=True)
    assert [block.units for block in door.kept.blocks.values()] == [1]


@pytest.mark.req("B11", "D3")
def test_the_snapshot_on_disk_keeps_switches(tmp_path: Path) -> None:
    door = Door(tmp_path)
    until = door.clock.now() + timedelta(minutes=5)
    one, other = thrown(door), thrown(door, id="sw_2", route="support", expires_at=until)
    kept = with_switches(one, other)

    file.save_snapshot(kept, tmp_path / "kept.json")

    assert file.load_snapshot(tmp_path / "kept.json").switches == (one, other)
