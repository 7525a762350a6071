import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest

from evals.sim import server as sim
from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame.people.access import SYSTEM, key_hash
from harness.frame.people.records import ApiKeys
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.signed_rows import Lineage
from harness.gate.canary_sentences import guard_sentence
from harness.gate.online.guardrails import ErrorTally, Guardrail
from harness.gate.online.rollout import RolloutState
from harness.operations import control_jobs, keys
from harness.providers.records import Providers
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from router.snapshot.holder import load_snapshot
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_upstream import (
    completion,
    running_upstream,
)
from tests.support.router import router_process
from tests.support.router.live_router import (
    KEY,
    SECRET,
    running_router_on,
    wait_until,
)
from tests.support.router.router_process import (
    Routed,
    ask,
    eventually,
    routed,
    start_canary,
)
from tests.support.site.signing_keys import CONTROL
from tests.support.site.small_disk import full, small_disk
from tests.support.store import records
from tests.support.store.records import OLD, ROUTE

pytestmark = pytest.mark.slow
SLOW_S = 2.0
EVER = datetime(2000, 1, 1, tzinfo=UTC)


class Slow:
    """A store whose every unit of work takes SLOW_S longer. turns: how many have."""

    def __init__(self, store: Store) -> None:
        self.turns = 0
        self._store = store
        self._lock = threading.Lock()

    def _delay(self) -> None:
        time.sleep(SLOW_S)
        with self._lock:
            self.turns += 1

    def etag(self) -> str:
        self._delay()
        return self._store.etag()

    def snapshot(self) -> object:
        self._delay()
        return self._store.snapshot()

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        self._delay()
        return self._store.missing_lineage(known)

    def wait_for_change(self, timeout_s: float) -> bool:
        return self._store.wait_for_change(timeout_s)

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._delay()
        with self._store.write() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Any]:
        self._delay()
        with self._store.read() as tx:
            yield tx


@pytest.mark.req("G5")
@pytest.mark.verify
def test_a_database_that_takes_two_seconds_for_everything_slows_no_request(
    database_url: str, tmp_path: Path
) -> None:
    with (
        running_upstream() as upstream,
        closing(
            Store(
                database_url,
                secret=SECRET,
                clock=SystemClock(),
                signatures=CONTROL,
            )
        ) as store,
    ):
        upstream.turns = {OLD.model: completion("hello")}
        records.seeded(store)
        with store.write() as tx:
            for name in ("sim", "other"):
                provider = replace(records.PROVIDER, name=name, api_base=upstream.url)
                Providers(tx).put(provider)
            hashed = key_hash(KEY, SECRET)
            ApiKeys(tx).add(replace(records.KEY, hash=hashed, routes=frozenset()))
        slow = Slow(store)
        with (
            running_router_on(
                RouterStore(cast("Store", slow)),
                tmp_path,
                classes=records.CLEARED,
            ) as (url, _, recorder),
            openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client,
        ):
            asked = [while_it_works(slow, client) for _ in range(3)]
            wait_until(
                lambda: recorder.counters["rows_written"] > 0 and recorded(store) == sum(asked),
                timeout_s=30,
            )
    # Were one of them to wait for the database, it would be the only one.
    assert min(asked) >= 5


def while_it_works(slow: Slow, client: openai.OpenAI) -> int:
    before = slow.turns
    wait_until(lambda: slow.turns > before)
    # Reading and recording take turns: in this time each is at work once.
    until = slow.turns + 2
    answered = 0
    while slow.turns < until:
        done = client.chat.completions.create(
            model=ROUTE, messages=[{"role": "user", "content": "hi"}]
        )
        assert done.choices[0].message.content == "hello"
        answered += 1
    return answered


def recorded(store: Store) -> int:
    with store.read() as tx:
        return sum(row.requests for row in Observations(tx).traffic(since=EVER))


@pytest.fixture(name="disk")
def mounted_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as disk:
        yield disk


@pytest.mark.req("G5")
def test_a_full_disk_costs_no_request_tears_nothing_and_loses_nothing(disk: Path) -> None:
    # Database, spool, snapshot, rates and logs: all of it is on that disk.
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        routed(disk, provider) as world,
    ):
        world.start()
        with world.load() as load:
            load.more()
            with full(disk):
                load.more(200)
                eventually(lambda: world.counter("swapproof_router_flushes_failed_total") > 0)
            load.more()
        assert load.errors == []
        wait_until(lambda: world.recorded() == load.answered, timeout_s=60)
        assert world.counter("swapproof_observations_dropped_total") == 0
        assert load_snapshot(disk / "home" / "snapshot.json").table.routes
        assert world.readyz() == "ok"
        assert world.place.terminate("router") == 0
        with closing(sqlite3.connect(disk / "swapproof.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.req("A1", "G5")
def test_a_locked_database_costs_no_request_and_no_observation(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        world.start()
        with world.load() as load, closing(file_of(world)) as other:
            load.more()
            other.execute("BEGIN EXCLUSIVE")
            load.more(60)
            other.rollback()
            load.more()

        assert load.errors == []
        eventually(lambda: world.recorded() == load.answered)


@pytest.mark.req("G5")
@pytest.mark.verify
def test_a_revoked_key_stays_refused_without_the_database_also_after_a_restart(
    provider: str, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.db"
    away = tmp_path / "elsewhere.db"
    with routed(tmp_path, provider) as world:
        ctx = world.installation.context
        secret = world.installation.secret
        revoked, text = keys.create_key(
            ctx,
            SYSTEM,
            "gone",
            secret=secret,
        )
        keys.revoke_key(ctx, SYSTEM, revoked.id)

        def answers() -> list[bool]:
            with world.client() as known, world.client(text) as gone:
                return [accepted(known), accepted(gone)]

        world.start()
        assert answers() == [True, False]
        shutil.move(file, away)
        eventually(lambda: world.readyz() == "degraded")
        assert answers() == [True, False]
        world.kill()
        world.start()
        assert world.readyz() == "degraded"
        assert answers() == [True, False]


@pytest.mark.req("F1", "F3")
def test_keys_and_a_canary_are_in_force_soon_after_they_are_decided(
    provider: str,
    database_url: str,
    tmp_path: Path,
) -> None:
    with routed(tmp_path, provider, database_url) as world:
        world.start()
        context = world.installation.context
        secret = world.installation.secret

        made, text = keys.create_key(
            context,
            SYSTEM,
            "new",
            secret=secret,
        )
        with world.client(text) as client:
            eventually(lambda: accepted(client))
            keys.revoke_key(context, SYSTEM, made.id)
            eventually(lambda: not accepted(client))

        start_canary(world, tmp_path)
        with world.client() as client:
            eventually(lambda: arms(client) == {"incumbent", "canary"})
        assert world.place.terminate("router") == 0
        with world.installation.store.read() as tx:
            (rollout,) = Rollouts(tx).live()
            blocks = Observations(tx).blocks(rollout.id)
        assert sum(block.canary_units for block in blocks) > 0


def test_the_routers_processes_load_nothing_that_they_do_not_need(
    provider: str, tmp_path: Path
) -> None:
    heavy = (
        "{'fastapi', 'httpx', 'openai', 'litellm', 'inspect_ai', 'numpy', 'evals', 'psycopg'}"
    )
    code = (
        "import pickle, socket, sys; from pathlib import Path;"
        "from router.server import process;"
        "from harness.app import data_plane, installation, router_process;"
        f"process.serve = lambda *_, **__: print(sorted({heavy} & set(sys.modules)));"
        "ours, theirs = socket.socketpair();"
        "settings = installation.load_settings(Path(sys.argv[1]));"
        "given, channel = pickle.dumps(settings), theirs.detach();"
        "router_process.run_router_worker(given, channel=channel, listeners=[]);"
        "from router.workers import parent;"
        "from router.recording import recorder, worker_aggregator;"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    with routed(tmp_path, provider) as world:
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", code, str(world.place.config)],
            capture_output=True,
            text=True,
            check=True,
        )

    assert done.stdout == "[]\n[]\n"


def file_of(world: Routed) -> sqlite3.Connection:
    return sqlite3.connect(world.place.folder / "swapproof.db", isolation_level=None)


def accepted(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except (openai.AuthenticationError, openai.RateLimitError):
        # An address that tries unknown keys again and again is refused for that.
        return False
    return True


def arms(client: openai.OpenAI) -> set[str]:
    found = set()
    for number in range(24):
        raw = client.chat.completions.with_raw_response.create(
            model=router_process.ROUTE,
            messages=[{"role": "user", "content": "hi"}],
            user=f"user-{number}",
        )
        found.add(raw.headers["x-swapproof-arm"])
    return found


@pytest.fixture
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url:
        yield url


def on_the_canary(world: Routed, users: int = 40) -> int:
    """Of so many new users, how many the workers send to the candidate."""
    with world.client() as client:
        raw = [
            client.chat.completions.with_raw_response.create(
                model="chat",
                messages=[{"role": "user", "content": "hi"}],
                user=f"late-{n}",
            )
            for n in range(users)
        ]
    return sum(answer.headers["x-swapproof-arm"] == "canary" for answer in raw)


def kept_abort(folder: Path) -> bool:
    files = folder.rglob("guard/*.json")
    return any("canary_failures" in file.read_text(encoding="utf-8") for file in files)


@pytest.mark.req("F3", "F4")
@pytest.mark.verify
def test_a_canary_that_breaks_is_stopped_without_a_control_plane_and_stays_so(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        start_canary(world, tmp_path)
        world.start("--workers", "2")
        with world.client() as client:
            ask(client, user="first")
        assert on_the_canary(world) > 0
        httpx.put(f"{provider}/sim/faults/sim-better", json={"kind": "status"})

        # No control process runs.
        with world.load(callers=2) as load:
            eventually(lambda: world.counter("swapproof_router_canaries_aborted_total") == 1)

        assert load.errors == []
        # The parent counts it, and tells its workers.
        eventually(lambda: all(on_the_canary(world, users=4) == 0 for _ in range(8)))

        # The stop is in force at once, and a thread puts it on disk.
        eventually(lambda: kept_abort(tmp_path))

        world.kill()
        world.start("--workers", "2")
        assert on_the_canary(world) == 0

        ctx = world.installation.context
        with ctx.store.read() as tx:
            (rollout,) = Rollouts(tx).live()
        eventually(
            lambda: any("rollback" in action for action in control_jobs.reconcile(ctx).did)
        )
        with ctx.store.read() as tx:
            after = Rollouts(tx).get(rollout.id)
        assert after.state is RolloutState.ROLLED_BACK
        guard = after.decided.guard if after.decided else None
        assert guard is not None
        assert guard.error is not None
        assert guard.error.failure == "server"
        assert after.ended_because == guard_sentence(guard)
        eventually(lambda: list(tmp_path.rglob("guard/*.json")) == [])


@pytest.mark.req("F3")
def test_workers_tell_their_parent_how_a_candidate_failed(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        start_canary(world, tmp_path)
        world.start("--workers", "2")
        httpx.put(f"{provider}/sim/faults/sim-better", json={"kind": "status"})

        assert on_the_canary(world) > 0
        assert world.place.terminate("router") == 0

        failed = [block for block in world.blocks() if block.canary_failures]
        assert failed
        for block in failed:
            tally = block.counts[Guardrail.ERRORS]
            assert isinstance(tally, ErrorTally)
            # After some errors the candidate's circuit leaves it out.
            assert tally.classes["server: 500 server_error"].canary >= 1
            assert set(tally.classes) <= {
                "server: 500 server_error",
                "circuit_open",
            }
            assert sum(counts.failures for counts in tally.classes.values()) == block.failures
