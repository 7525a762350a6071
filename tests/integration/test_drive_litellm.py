"""`swapproof serve drive litellm` with the real LiteLLM proxy: its admin API, its router and
its spend logs. Only Prisma is a stand-in (`tests/support/litellm`), on a real PostgreSQL.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.acceptance.installation import Installation, Process, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    await_phase,
    await_up,
    before_simulator,
    propose,
)
from tests.integration.test_beside_litellm import (
    MANY,
    MASTER_KEY,
    PAGE,
    answers_of,
    installed_litellm,
    running_litellm,
)

REQUESTS = 5_000
STAND_IN = Path(__file__).parents[1] / "support" / "litellm"
USUAL_LITELLM = "http://127.0.0.1:4000"

pytestmark = [
    pytest.mark.verify,
    pytest.mark.req("F1"),
    pytest.mark.timeout(5400),
]


@dataclass
class Callers:
    """Eight callers, each request a session of its own, until the block ends."""

    proxy: str
    done: int = 0
    failed: list[str] = field(default_factory=list)

    @contextmanager
    def asking(self) -> Iterator[None]:
        over = threading.Event()
        lock = threading.Lock()
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": "Where is it?"}],
        }

        def ask_on() -> None:
            headers = {"Authorization": f"Bearer {MASTER_KEY}"}
            with httpx.Client(base_url=self.proxy, headers=headers, timeout=120) as client:
                while not over.is_set():
                    answer = client.post("/chat/completions", json=body)
                    with lock:
                        self.done += 1
                        if not answer.is_success:
                            self.failed.append(answer.text[:300])

        with ThreadPoolExecutor(8) as threads:
            for _ in range(8):
                threads.submit(ask_on)
            try:
                yield
            finally:
                over.set()


@dataclass
class Beside:
    """An installation without a router, beside a LiteLLM with the page's two deployments."""

    place: Installation
    sim: Simulator
    proxy: str

    def drive(self) -> Process:
        words = ("--url", self.proxy.removesuffix("/v1"), "--settle", "1")
        key = {"LITELLM_MASTER_KEY": MASTER_KEY}
        return self.place.start("serve", "drive", "litellm", *words, env=key)

    def admin(
        self,
        method: str,
        path: str,
        **body: object,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        url = self.proxy.removesuffix("/v1") + path
        answer = httpx.request(
            method,
            url,
            headers=headers,
            json=body or None,
            timeout=60,
        )
        return answer.raise_for_status()

    def shares(self) -> dict[str, tuple[float, bool]]:
        """By model: its weight, and whether LiteLLM may send it requests."""
        models = self.admin("GET", "/v1/model/info").json()["data"]
        return {
            m["litellm_params"]["model"]: (
                m["litellm_params"].get("weight"),
                not m["model_info"]["blocked"],
            )
            for m in models
        }

    def deployment(self, model: str) -> str:
        models = self.admin("GET", "/v1/model/info").json()["data"]
        return next(str(m["model_info"]["id"]) for m in models if model in str(m))

    def alerts(self) -> list[str]:
        return [a["text"] for a in self.place.json("alert", "list") if a["kind"] == "split"]


BASE = "openai/sim-base"
BETTER = "openai/sim-better"
ONLY_BASE = {BASE: (10_000, True), BETTER: (0, False)}
ONLY_BETTER = {BASE: (0, False), BETTER: (10_000, True)}


@pytest.fixture
def beside(tmp_path: Path, empty_postgres_url: str) -> Iterator[Beside]:
    place = Installation(Path(sys.executable).with_name("swapproof"), tmp_path / "place", {})
    sim = Simulator(place)
    place.configure(before_simulator(sim, support={}))
    database = empty_postgres_url.replace("+psycopg", "").replace("@/", "@localhost/")
    programs = installed_litellm(tmp_path)
    tables = [str(programs / "python"), str(STAND_IN / "tables.py")]
    subprocess.run([*tables, database.replace("@localhost/", "@/")], check=True)  # noqa: S603
    own = {
        "PROVIDER_URL": f"{sim.url}/v1",
        "DATABASE_URL": database,
        "DISABLE_SCHEMA_UPDATE": "true",
        "LITELLM_SALT_KEY": MASTER_KEY,
        "PYTHONPATH": str(STAND_IN),
    }
    try:
        place.init()
        await_up(place, "control")
        with running_litellm("drive.yaml", "", tmp_path, programs, **own) as proxy:
            (commands,) = re.findall(
                r"```sh\n(.*?)swapproof serve drive",
                PAGE,
                re.DOTALL,
            )
            url = proxy.removesuffix("/v1")
            subprocess.run(  # noqa: S603 - the page's commands
                ["/bin/bash", "-ec", commands.replace(USUAL_LITELLM, url)],
                env={**os.environ, "LITELLM_MASTER_KEY": MASTER_KEY},
                check=True,
            )
            yield Beside(place, sim, proxy)
    finally:
        place.close()


def test_litellms_weights_follow_a_rollback_and_then_a_promotion_without_a_failed_request(
    beside: Beside,
) -> None:
    place = beside.place
    sim = beside.sim
    callers = Callers(beside.proxy)
    driver = beside.drive()
    eventually(lambda: beside.shares() == ONLY_BASE)
    with callers.asking():
        swap = propose(place, "support", "sim/sim-better")
        eventually(lambda: beside.shares()[BETTER] == (100, True))
        sim.fault("sim-better", "status", status=500)
        await_phase(place, swap, "rolled_back")
        eventually(lambda: beside.shares() == ONLY_BASE)
        sim.heal()
        swap = propose(place, "support", "sim/sim-better")
        eventually(lambda: beside.shares()[BETTER] == (100, True))
        driver.kill()
        driver = beside.drive()  # goes on
        await_phase(place, swap, "promoted")
        eventually(lambda: beside.shares() == ONLY_BETTER)
        sim.reset_stats()
        eventually(lambda: answers_of(sim, "sim-better") > MANY)
        assert not answers_of(sim, "sim-base")
        eventually(lambda: callers.done >= REQUESTS, wait_s=3_000)
    assert callers.failed == []

    path = f"/model/{beside.deployment('sim-base')}/update"
    beside.admin(
        "PATCH",
        path,
        litellm_params={"weight": 5_000},
        blocked=False,
    )
    eventually(lambda: any("sim/sim-base has 33" in text for text in beside.alerts()))
    eventually(lambda: beside.shares() == ONLY_BETTER)
    assert MASTER_KEY not in driver.log
