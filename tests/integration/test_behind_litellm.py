"""A real LiteLLM proxy in front of a route, by the block of the page on LiteLLM."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai
import pytest

from tests.integration.test_clients_docs import BLOCK, USUAL_URL, Client, install
from tests.support.providers.scripted_upstream import completion, running_upstream, streamed
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

PAGE = (DOCS / "how-to" / "migrate-from-litellm.md").read_text("utf-8")
MASTER_KEY = "sk-0123456789abcdef0123456789abcdef"
ARM = "llm_provider-x-swapgate-arm"

pytestmark = [pytest.mark.verify, pytest.mark.req("A1", "F1"), pytest.mark.timeout(900)]


@contextmanager
def running_litellm(url: str, folder: Path) -> Iterator[str]:
    (version,) = re.findall(r"LiteLLM (\d+\.\d+\.\d+)", PAGE)
    programs = install(
        Client("LiteLLM", "PyPI", ("litellm[proxy]",), (version,), ""), folder / "client"
    )
    ((_, title, text),) = [block for block in BLOCK.findall(PAGE) if block[1]]
    file = folder / title
    file.write_text(text.replace(USUAL_URL, url), "utf-8")
    port = free_port()
    environment = {
        **os.environ,
        "SWAPGATE_KEY": KEY,
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    words = [str(programs / "litellm"), "--config", str(file), "--host", "127.0.0.1"]
    with (folder / "litellm.log").open("wb") as log:
        proxy = subprocess.Popen(  # noqa: S603 - the program that was just installed
            [*words, "--port", str(port)], env=environment, stdout=log, stderr=log
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
        running_litellm(world.url, tmp_path) as proxy,
        openai.OpenAI(base_url=proxy, api_key=MASTER_KEY, max_retries=0) as client,
    ):
        upstream.turns = dict.fromkeys((INCUMBENT, CANDIDATE), completion())

        def arm(text: str, field: str, caller: str) -> str:
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
            model="support", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello"
