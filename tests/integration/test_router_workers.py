"""Several workers under one parent: real processes, real signals, the official client.

What is asked of any one router must hold of all its workers together.
"""

import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import psutil
import pytest
import yaml

from evals.sim import server as sim
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.people.limits import KeyLimits
from harness.operations import keys
from harness.providers.force import Force, ForceKind, SwitchSource
from harness.routing.control import freezes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.records.observations import Observations
from tests.support.providers import simulator_thread
from tests.support.router.router_process import (
    EVER,
    Routed,
    ask,
    eventually,
    routed,
    start_canary,
)
from tests.support.site.processes import kill_nine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# It tells its parent every 50 ms, later on a slow machine: three requests of each caller.
UNREPORTED = 24
# As the callers of `Routed.load` see a connection that ended under them.
CUT_OFF = {"APIConnectionError", "APIError", "RemoteProtocolError"}


@pytest.fixture(scope="module")
def slow_provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.5)) as url:
        yield url


def metrics(world: Routed) -> dict[str, float]:
    with world.client() as client:
        headers = {"authorization": f"Bearer {world.key}"}
        answer = client._client.get(f"{world.url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    lines = [
        line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")
    ]
    return {name: float(value) for name, _, value in lines}


def requests(world: Routed) -> float:
    found = metrics(world)
    return sum(n for name, n in found.items() if name.startswith("swapproof_requests_total"))


def kinds(errors: list[str]) -> set[str]:
    return {error.split("(")[0] for error in errors}


@pytest.mark.req("B9", "G5")
def test_a_killed_worker_takes_its_own_requests_alone_and_is_replaced(
    slow_provider: str,
    database_url: str,
    tmp_path: Path,
) -> None:
    with routed(tmp_path, slow_provider, database_url) as world:
        world.start("--workers", "2")
        start_canary(world, tmp_path)
        # Requests from before it are in no block.
        eventually(lambda: in_force(world))
        with world.load(callers=8) as load:
            load.more(60)
            killed, other = world.workers()
            before = requests(world)
            kill_nine(killed.pid)
            eventually(lambda: replaced(world, killed))
            assert other.is_running()
            # At most what every caller had under way; each notices when its turn comes.
            load.more(60, known=8)

        known = len(load.errors)
        assert known <= 8
        assert kinds(load.errors) <= CUT_OFF
        after = metrics(world)
        assert after["swapproof_router_worker_restarts_total"] == 1
        assert before <= requests(world)
        assert world.place.terminate("router") == 0

        blocks = world.blocks()
        units = sum(block.units for block in blocks)
        missing = sum(block.missing for block in blocks)
        # What the killed worker had not reported yet is all that may lack: an outcome, whose
        # unit is missing then, or its admission as well.
        assert load.answered - UNREPORTED <= units <= load.answered + known
        assert missing <= known + UNREPORTED
        assert missing <= sum(block.failures for block in blocks) <= known + UNREPORTED
        assert load.answered - known - 60 <= world.recorded() <= load.answered + known


@pytest.mark.spine
@pytest.mark.req("B11", "G5")
def test_a_switch_forces_a_provider_on_all_workers_and_on_the_successor_of_a_killed_one(
    provider: str, tmp_path: Path
) -> None:
    base = {"kind": "sim", "api_base": f"{provider}/v1"}
    chain = {"incumbent": "sim/sim-base", "fallbacks": ["spare/sim-backup"]}
    with routed(
        tmp_path,
        provider,
        providers={"sim": base, "spare": base},
        routes={"chat": chain},
    ) as world:
        ctx = world.installation.context
        approver = Actor("ben", Role.APPROVER, "pr_ben")
        world.start("--workers", "2")
        eventually(lambda: answers_everywhere(world, "sim/sim-base"))

        forced = SwitchRequest(Force(ForceKind.PROVIDER, "spare"), "sim answers nonsense")
        switch = freezes.set_switch(ctx, approver, forced, source=SwitchSource.CLI)
        eventually(lambda: answers_everywhere(world, "spare/sim-backup"), timeout_s=60)

        killed, _ = world.workers()
        kill_nine(killed.pid)
        eventually(lambda: replaced(world, killed))
        eventually(lambda: answers_everywhere(world, "spare/sim-backup"), timeout_s=60)

        freezes.lift_switch(ctx, approver, switch.id, reason="sim is well again")
        eventually(lambda: answers_everywhere(world, "sim/sim-base"))
        assert world.place.terminate("router") == 0


@pytest.mark.verify
@pytest.mark.req("G5")
def test_sigterm_under_load_lets_begun_requests_end(slow_provider: str, tmp_path: Path) -> None:
    with routed(tmp_path, slow_provider) as world:
        world.start("--workers", "2")
        with world.load(callers=8) as load:
            load.more()
            workers = world.workers()
            code = world.place.terminate("router")
            load.stopping.set()

        assert code == 0, world.place.log("router")
        # Whoever came too late was not let in; nobody was cut off.
        assert kinds(load.errors) <= {"APIConnectionError"}
        assert world.recorded() == load.answered
        assert sum(row.failed for row in world.traffic()) == 0
        assert not any(worker.is_running() for worker in workers)
        assert "Traceback" not in world.place.log("router")


@pytest.mark.req("G5")
def test_sighup_under_load_takes_the_new_configuration_and_fails_nobody(
    slow_provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, slow_provider) as world:
        world.start()
        with world.load(callers=8) as load:
            load.more()
            (old,) = world.workers()
            idle = socket.create_connection(("127.0.0.1", world.place.ports["router"]))
            assert alive(idle).startswith(b"HTTP/1.1 200")
            configure(world, workers=2)
            world.place.children["router"].send_signal(signal.SIGHUP)
            eventually(lambda: metrics(world).get("swapproof_router_reloads_total") == 1)
            time.sleep(1.5)  # an idle connection is not hung up on: it may be about to send
            assert alive(idle).startswith(b"HTTP/1.1 200")
            idle.close()
            psutil.wait_procs([old], timeout=60)
            load.more()

        assert load.errors == []
        assert not old.is_running()
        assert len(world.workers()) == 2
        eventually(lambda: world.recorded() == load.answered)
        assert world.place.terminate("router") == 0


@pytest.mark.req("G5")
@pytest.mark.verify
def test_a_bad_configuration_is_refused_whole_with_its_place(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        world.start("--workers", "2")
        before = {worker.pid for worker in world.workers()}
        with world.load() as load:
            text = world.place.config.read_text(encoding="utf-8")
            broken = text + "\nrooter: {}\n"
            world.place.config.write_text(broken, encoding="utf-8")
            hang_up(world, refused=1)
            world.place.config.write_text(
                text.replace("flush_interval_s", "worker_count: 2\n  flush_interval_s"),
                encoding="utf-8",
            )
            hang_up(world, refused=2)
            configure(world, text, port=world.place.ports["router"] + 1)
            hang_up(world, refused=3)
            load.more()

            # A worker that dies now is replaced by one with the configuration that serves.
            first, _ = world.workers()
            kill_nine(first.pid)
            eventually(lambda: replaced(world, first))
            load.more(known=3)

        last_line = broken.rstrip().count("\n") + 1
        log = world.place.log("router")
        assert (
            f"swapproof.yaml:{last_line}: unknown key 'rooter'; did you mean 'router'?" in log
        )
        assert "unknown key 'router.worker_count'" in log
        assert "router.port changed, which needs a restart" in log
        assert len(before & {worker.pid for worker in world.workers()}) == 1
        assert len(load.errors) <= 3


@pytest.mark.req("G5")
@pytest.mark.verify
def test_workers_whose_parent_is_killed_end_and_let_requests_end(
    slow_provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, slow_provider) as world:
        world.start("--workers", "2")
        with world.load(callers=6) as load:
            load.more()
            world.kill()
            load.stopping.set()
        assert kinds(load.errors) <= {"APIConnectionError"}

        world.start("--workers", "2")
        with world.client() as client:
            assert ask(client)


@pytest.mark.req("G5")
def test_workers_share_a_keys_limit_and_one_connection_gets_all_of_it(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        ctx = world.installation.context
        secret = world.installation.secret
        (key, text), (_, other) = (
            keys.create_key(
                ctx,
                SYSTEM,
                name,
                secret=secret,
                limits=KeyLimits(requests_per_min=40),
            )
            for name in ("limited", "other")
        )
        world.start("--workers", "2")

        # One connection is one worker's.
        begun = time.monotonic()
        with world.client(text) as client:
            alone = sum(outcome(client) == 200 for _ in range(60))
        assert 40 <= alone <= 41 + (time.monotonic() - begun) * 40 / 60
        # 12 connections, and both workers.
        begun = time.monotonic()
        counter = Counter(target for _ in range(12) for target in fresh(world, other, times=5))
        assert 40 <= counter[200] <= 45 + (time.monotonic() - begun) * 40 / 60
        assert counter[200] + counter[429] == 60

        def recorded() -> int:
            with world.installation.store.read() as tx:
                rows = Observations(tx).spends(since=EVER.date())
            return sum(row.requests for row in rows if row.key == key.id)

        eventually(lambda: recorded() == alone)
        refused = (60 - alone) + counter[429]
        eventually(lambda: world.counter("swapproof_router_rate_limited_total") == refused)


def answers_everywhere(world: Routed, target: str) -> bool:
    """Whether this target answers on both workers; each connection may go to either."""
    names = set()
    for _ in range(40):
        with world.client() as client, suppress(openai.APIConnectionError):
            raw = client.chat.completions.with_raw_response.create(
                model="chat", messages=[{"role": "user", "content": "Colour number 3?"}]
            )
            if raw.headers["x-swapproof-target"] != target:
                return False
            names.add(raw.headers["x-swapproof-request-id"].rpartition("-")[0])
        if len(names) == 2:
            return True
    return False


def outcome(client: openai.OpenAI) -> int:
    try:
        ask(client)
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def fresh(
    world: Routed,
    text: str,
    *,
    times: int,
) -> list[int]:
    with world.client(text) as client:
        return [outcome(client) for _ in range(times)]


@pytest.mark.verify
@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="Linux alone tells")
def test_a_worker_may_have_as_many_connections_as_the_system_allows(
    provider: str, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))
    try:
        with routed(tmp_path, provider) as world:
            world.start()
            (worker,) = world.workers()
            assert worker.rlimit(psutil.RLIMIT_NOFILE)[0] == min(hard, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def configure(
    world: Routed,
    text: str | None = None,
    **router: object,
) -> None:
    file = world.place.config
    document = yaml.safe_load(text or file.read_text(encoding="utf-8"))
    document["router"].update(router)
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def hang_up(world: Routed, *, refused: int) -> None:
    world.place.children["router"].send_signal(signal.SIGHUP)
    name = "swapproof_router_reloads_refused_total"

    def counted() -> bool:
        # A parent that reads its configuration may not answer its worker in time.
        with suppress(AssertionError):
            return metrics(world).get(name) == refused
        return False

    eventually(counted)


def alive(connection: socket.socket) -> bytes:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    return connection.recv(65536)


def replaced(world: Routed, killed: psutil.Process) -> bool:
    found = metrics(world)
    return (
        killed.pid not in {worker.pid for worker in world.workers()}
        and found.get("swapproof_router_worker_restarts_total") == 1
        and found["swapproof_router_workers"] == 2
    )


def in_force(world: Routed) -> bool:
    named = metrics(world).items()
    found = [n for name, n in named if name.startswith("swapproof_routing_revision{")]
    return found == [world.revision()] * len(world.workers())


@pytest.mark.req("A1", "F3")
def test_flags_that_any_worker_evaluates_are_exposures_whose_outcome_is_feedback(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        start_canary(world, tmp_path)
        world.start("--workers", "2")
        told = [tell_of_a_flag(world, number) for number in range(60)]
        variants = {tell_of_a_flag(world, 7)[0] for _ in range(4)}
        assert world.place.terminate("router") == 0
        blocks = world.blocks()

    assert {outcome for _, outcome in told} == {"counted"}
    assert {variant for variant, _ in told} == {"incumbent", "canary"}
    assert len(variants) == 1
    assert sum(block.units for block in blocks) == 60
    assert sum(block.failures for block in blocks) == 20
    assert not any(block.missing for block in blocks)


def tell_of_a_flag(world: Routed, number: int) -> tuple[str, str]:
    """Returns the caller's variant, and what became of its feedback."""
    context = {"context": {"targetingKey": f"user-{number}"}}
    headers = {"authorization": f"Bearer {world.key}"}
    url = f"{world.url}/ofrep/v1/evaluate/flags/chat"
    flag = httpx.post(url, json=context, headers=headers).raise_for_status().json()
    opinion = {
        "request_id": flag["metadata"]["request_id"],
        "thumb": "up" if number % 3 else "down",
    }
    said = httpx.post(f"{world.url}/v1/feedback", json=opinion, headers=headers)
    return flag["variant"], said.json()["outcome"]
