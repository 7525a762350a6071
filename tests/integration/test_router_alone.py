"""The router's own process, with the official client, while everything else comes and goes.

Real processes, real signals, the simulator over HTTP, and databases that are really away.
"""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import openai
import pytest

from harness.control.operations import keys
from harness.domain.operations.access import SYSTEM
from tests.support.router.router_process import ROUTE, Routed, eventually, routed, start_canary

pytestmark = pytest.mark.slow


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
    file, away = tmp_path / "swapgate.db", tmp_path / "elsewhere.db"
    with routed(tmp_path, provider) as world:
        ctx, secret = world.installation.context, world.installation.secret
        revoked, text = keys.create_key(ctx, SYSTEM, "gone", secret=secret)
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
    provider: str, database_url: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider, database_url) as world:
        world.start()
        context, secret = world.installation.context, world.installation.secret

        made, text = keys.create_key(context, SYSTEM, "new", secret=secret)
        with world.client(text) as client:
            eventually(lambda: accepted(client))
            keys.revoke_key(context, SYSTEM, made.id)
            eventually(lambda: not accepted(client))

        start_canary(world, tmp_path)
        with world.client() as client:
            eventually(lambda: arms(client) == {"incumbent", "canary"})
        assert world.place.terminate("router") == 0
        with world.installation.store.read() as tx:
            (rollout,) = tx.rollouts.live()
            blocks = tx.observations.blocks(rollout.id)
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
    return sqlite3.connect(world.place.folder / "swapgate.db", isolation_level=None)


def accepted(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except openai.AuthenticationError:
        return False
    return True


def arms(client: openai.OpenAI) -> set[str]:
    found = set()
    for number in range(24):
        raw = client.chat.completions.with_raw_response.create(
            model=ROUTE, messages=[{"role": "user", "content": "hi"}], user=f"user-{number}"
        )
        found.add(raw.headers["x-swapgate-arm"])
    return found
