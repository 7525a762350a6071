import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from harness.agents import agents, switches
from harness.agents.agents import AgentsClient
from harness.frame.people.access import SYSTEM, Role
from harness.operations import keys
from tests.integration.test_secrets_leak_nowhere import content, forms
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    completion,
    error,
)
from tests.support.router.router_process import eventually
from tests.support.site.agents_site import (
    OPENAI_KEY,
    AgentsSite,
    agents_site,
    error_of,
    good,
)

pytestmark = pytest.mark.slow

WORD = "Zanzibar"
SEED = "sk-SEEDprovider-0123456789abcdef"


def admin(site: AgentsSite) -> dict[str, str]:
    installation = site.world.installation
    ctx = installation.context
    _, text = keys.create_key(
        ctx,
        SYSTEM,
        ctx.chance.token("ada-"),
        secret=installation.secret,
        role=Role.ADMIN,
    )
    return {"authorization": f"Bearer {text}"}


def tables_with(site: AgentsSite, text: str) -> set[str]:
    """The tables of the database that have it in a row."""
    file = site.world.place.folder / "swapproof.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        named = [name for (name,) in db.execute(query)]
        return {
            name
            for name in named
            if any(text in repr(row) for row in db.execute(f"SELECT * FROM {name}"))  # noqa: S608 - our own table
        }


@pytest.mark.req("E2", "C8")
def test_a_session_that_nobody_used_for_so_long_is_deleted_by_control(tmp_path: Path) -> None:
    control = {"housekeeping_interval_s": 0.2}
    with agents_site(tmp_path, sections={"control": control}, keep_days=10) as site:
        site.upstream.turns["sim-base"] = completion()
        young = site.session()
        good(site.send(young, "hello"))
        agent = young.split("/")[2]
        ctx = site.world.installation.context
        old = replace(ctx, clock=ManualClock(ctx.clock.now() - timedelta(days=11)))
        operator = AgentsClient.of_operator()
        made = agents.open_session(old, operator, agent, "user-1", {"word": WORD})
        path = f"/agents/{agent}/sessions/{made.id}"
        assert site.client.get(path).status_code == 200

        site.world.place.start("control", "serve", "control", wait_for="/readyz")

        eventually(lambda: site.client.get(path).status_code == 404)
        assert tables_with(site, WORD) == set()
        assert len(site.messages(young)) == 2


@pytest.fixture
def leaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentsSite]:
    """A provider that tells in its errors whatever it was sent."""
    monkeypatch.setenv(OPENAI_KEY, SEED)
    monkeypatch.setenv("SWAPPROOF_SECRET", "SEEDsecret-0123456789abcdef")

    def echo_headers(request: ReceivedRequest) -> ScriptedTurn:
        return error(
            400 if "400" in str(request.json["messages"]) else 401,
            str(request.headers),
        )

    with agents_site(tmp_path, with_openai=True, with_control=True) as site:
        site.upstream.turns |= {
            "gpt-4o-mini": echo_headers,
            "sim-base": completion(),
        }
        yield site


@pytest.mark.req("E2", "C8")
def test_no_key_is_in_prompts_transcripts_errors_logs_or_files(
    leaky: AgentsSite, tmp_path: Path
) -> None:
    site = leaky
    world = leaky.world
    mine = {"authorization": f"Bearer {world.key}"}
    approver = admin(site)
    seeds = [SEED, "SEEDsecret-0123456789abcdef", world.key]
    seeds.append(approver["authorization"].removeprefix("Bearer "))
    answers: list[httpx.Response] = []

    def post(
        path: str,
        body: object,
        headers: dict[str, str],
    ) -> httpx.Response:
        answers.append(site.client.post(path, json=body, headers=headers))
        return answers[-1]

    for model, headers in (("chat", mine), ("openai:gpt-4o-mini", approver)):
        body = {
            "name": "support",
            "model": model,
            "config": {"fallbackModel": "chat"},
        }
        if model == "chat":
            body.pop("config")
        agent = good(post("/agents", body, headers))["id"]
        session = good(post(f"/agents/{agent}/sessions", {"userId": "u"}, headers))["id"]
        place = f"/agents/{agent}/sessions/{session}/messages"
        for text in ("hello", "tell me 400"):
            for streams in (False, True):
                post(
                    place,
                    {
                        "role": "user",
                        "content": text,
                        "stream": streams,
                    },
                    headers,
                )
        answers.append(site.client.get(place, headers=headers))
        answers.append(site.client.get(f"/agents/{agent}", headers=headers))
        path = f"/agents/{agent}/sessions/{session}"
        good(post(f"{path}/switch_model", {"action": "list"}, headers))
        wanted = {
            "action": "switch",
            "model": "sim" if model != "chat" else "gpt-4o-mini",
        }
        request = post(f"{path}/switch_model", wanted, headers).json().get("request")
        answers.append(site.client.get(f"{path}/switch_requests", headers=headers))
        if request:
            ctx = world.installation.context
            assert ctx.approval_links is not None
            link = ctx.approval_links.link(switches.load_switch(ctx, request))
            answers.append(httpx.get(link))
    for wrong in (
        {"authorization": f"Bearer {SEED}"},
        {"authorization": f"Bearer {SEED} x"},
    ):
        error_of(post("/agents", {"name": "x", "model": "chat"}, wrong), 401)
    post("/agents", {"name": "x", "model": SEED}, approver)
    for name in ("agents", "control", "router"):
        assert world.place.terminate(name) == 0

    assert any("openai" in answer.text for answer in answers)
    assert any("Approve?" in answer.text for answer in answers)
    told = [f"{answer.headers} {answer.text}".encode() for answer in answers[:-1]]
    told += [request.body for request in site.upstream.asked]
    files = {str(file): content(file) for file in tmp_path.rglob("*") if file.is_file()}
    assert any(name.endswith("agents.log") for name in files)
    found = [
        (name, seed[:12])
        for name, data in (*enumerate(told), *files.items())
        for seed in seeds
        if any(form in data for form in forms(seed))
    ]
    assert found == []
