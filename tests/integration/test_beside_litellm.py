import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai
import psycopg
import pytest

from tests.acceptance.installation import Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    SHORT,
    await_phase,
    await_up,
    before_simulator,
    propose,
)
from tests.integration.test_clients_docs import (
    BLOCK,
    USUAL_URL,
    Client,
    install,
)
from tests.support.providers.scripted_upstream import (
    completion,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import (
    CANDIDATE,
    INCUMBENT,
    KEY,
    running_router,
    snapshot,
    wait_until,
)
from tests.support.site.documented_commands import DOCS
from tests.support.site.processes import free_port

PAGE = (DOCS / "how-to" / "beside-litellm.md").read_text("utf-8")
MASTER_KEY = "sk-0123456789abcdef0123456789abcdef"
MANY = 50
ARM = "llm_provider-x-swapproof-arm"
# LiteLLM answers some ten requests a second beside other tests: a first step of 1 % would take
# minutes.
FIRST, LAST = SHORT["canary"]["steps"]
WIDE = {
    **SHORT,
    "canary": {
        **SHORT["canary"],
        "steps": [{**FIRST, "weight_bps": 1_000}, LAST],
    },
}

pytestmark = [
    pytest.mark.verify,
    pytest.mark.req("A1", "F1"),
    pytest.mark.timeout(900),
]


def installed_litellm(folder: Path) -> Path:
    """Installs LiteLLM, with the driver of the database behind the stand-in for Prisma."""
    (version,) = re.findall(r"LiteLLM (\d+\.\d+\.\d+)", PAGE)
    packages = ("litellm[proxy]", "psycopg[binary]")
    versions = (version, psycopg.__version__)
    return install(Client("LiteLLM", "PyPI", packages, versions, ""), folder / "client")


@contextmanager
def running_litellm(
    title: str,
    url: str,
    folder: Path,
    programs: Path | None = None,
    **more: str,
) -> Iterator[str]:
    """Runs LiteLLM with the page's configuration of this title before the router at `url`."""
    programs = programs or installed_litellm(folder)
    for _, name, text in BLOCK.findall(PAGE):
        if name:
            (folder / name).write_text(text.replace(USUAL_URL, url), "utf-8")
    port = free_port()
    environment = {
        **os.environ,
        "SWAPPROOF_KEY": KEY,
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **more,
    }
    words = [
        str(programs / "litellm"),
        "--config",
        title,
        "--host",
        "127.0.0.1",
    ]
    with (folder / "litellm.log").open("wb") as log:
        proxy = subprocess.Popen(  # noqa: S603 - the program that was just installed
            [*words, "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: is_alive(port), timeout_s=600)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            proxy.terminate()
            proxy.wait(60)


def is_alive(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/health/liveliness").is_success
    return False


def test_callers_of_a_litellm_proxy_keep_their_arm_of_the_route_behind_it(
    tmp_path: Path,
) -> None:
    with (
        running_upstream() as upstream,
        running_router(snapshot(upstream.url, weight_bps=5_000), tmp_path) as world,
        running_litellm("behind.yaml", world.url, tmp_path) as proxy,
        openai.OpenAI(base_url=proxy, api_key=MASTER_KEY, max_retries=0) as client,
    ):
        upstream.turns = dict.fromkeys((INCUMBENT, CANDIDATE), completion())

        def arm(
            text: str,
            field: str,
            caller: str,
        ) -> str:
            named = {field: caller}
            answer = client.chat.completions.with_raw_response.create(
                model="support",
                messages=[{"role": "user", "content": text}],
                extra_headers=named if field.startswith("x-") else None,
                extra_body=None if field.startswith("x-") else named,
            )
            return str(answer.headers[ARM])

        callers = [f"caller-{number}" for number in range(24)]
        for field in ("user", "safety_identifier", "x-litellm-session-id"):
            first = [arm("Good morning", field, caller) for caller in callers]
            again = [arm("And a good evening", field, caller) for caller in callers]
            assert first == again
            assert set(first) == {"incumbent", "canary"}

        upstream.turns = dict.fromkeys((INCUMBENT, CANDIDATE), streamed("he", "llo"))
        chunks = client.chat.completions.create(
            model="support",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello"


def test_litellm_splits_as_a_route_says_until_a_rollback_and_until_a_promotion(
    tmp_path: Path,
) -> None:
    place = Installation(Path(sys.executable).with_name("swapproof"), tmp_path / "place", {})
    sim = Simulator(place)
    document = before_simulator(sim, support={"policy": "wide"})
    place.configure({**document, "policies": {"wide": WIDE}})
    try:
        place.init()
        await_up(place, "router", "control")
        own = {
            "SWAPPROOF_URL": place.url("router"),
            "PROVIDER_URL": f"{sim.url}/v1",
        }
        own["SWAPPROOF_KEY"] = place.data_key
        with running_litellm(
            "beside.yaml", place.url("router"), tmp_path, None, **own
        ) as proxy:
            swap = propose(place, "support", "sim/sim-better")
            await_phase(place, swap, "canary")
            with asked_by_new_callers(proxy) as failed:
                eventually(lambda: answers_of(sim, "sim-better"))
                sim.fault("sim-better", "status", status=500)
                await_phase(place, swap, "rolled_back")
                sim.heal()
                swap = propose(place, "support", "sim/sim-better")
                await_phase(place, swap, "promoted")
                eventually(lambda: many_are_of(sim, "sim-better"))
            assert failed == []
    finally:
        place.close()


def many_are_of(sim: Simulator, model: str) -> bool:
    sim.reset_stats()
    eventually(lambda: answers_of(sim, model) > MANY)
    return set(sim.stats()["models"]) == {model}


def answers_of(sim: Simulator, model: str) -> int:
    return int(sim.stats().get("models", {}).get(model, {}).get("requests", 0))


@contextmanager
def asked_by_new_callers(proxy: str) -> Iterator[list[str]]:
    """New callers ask without end, eight at once; yields what failed."""
    failed: list[str] = []
    callers = itertools.count()
    over = threading.Event()

    def ask_on() -> None:
        with openai.OpenAI(base_url=proxy, api_key=MASTER_KEY, max_retries=0) as client:
            while not over.is_set():
                try:
                    client.chat.completions.create(
                        model="support",
                        messages=[
                            {
                                "role": "user",
                                "content": "Where is my parcel?",
                            }
                        ],
                        user=f"caller-{next(callers)}",
                    )
                except openai.OpenAIError as error:
                    failed.append(repr(error))

    threads = [threading.Thread(target=ask_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        over.set()
        for thread in threads:
            thread.join()
