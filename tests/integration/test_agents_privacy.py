import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from harness.agents import agents, switches
from harness.agents.agents import AgentsClient
from harness.agents.caller import AgentCaller
from harness.agents.message import ServedBy
from harness.agents.records import AgentGrants, Agents, Sessions
from harness.agents.turn import ModelCallAnswer, ModelCallRequest
from harness.app.agents import RouterModelCalls
from harness.frame.errors import CallFailed, NobodyAnswered
from harness.frame.people.access import SYSTEM, Role, key_hash
from harness.frame.people.records import ApiKeys
from harness.operations import keys
from harness.providers.target import Target
from harness.routing.agent import (
    Agent,
    AgentGrant,
    AgentSession,
    GrantKind,
    ModelChoice,
    ModelKind,
)
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from tests.integration.test_secrets_leak_nowhere import content, forms
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import ReceivedRequest, completion, error
from tests.support.router.router_process import EVER, ROUTE, Routed, eventually, routed
from tests.support.site.agents_site import OPENAI_KEY, AgentsSite, agents_site, error_of, good

pytestmark = pytest.mark.slow

WORD = "Zanzibar"
SEED = "sk-SEEDprovider-0123456789abcdef"
TOOL = {"type": "function", "function": {"name": "find_order"}}


def admin(site: AgentsSite) -> dict[str, str]:
    installation = site.world.installation
    ctx = installation.context
    _, text = keys.create_key(
        ctx, SYSTEM, ctx.chance.token("ada-"), secret=installation.secret, role=Role.ADMIN
    )
    return {"authorization": f"Bearer {text}"}


def tables_with(site: AgentsSite, text: str) -> set[str]:
    """The tables of the database that have it in a row."""
    file = site.world.place.folder / "swapgate.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        named = [name for (name,) in db.execute(query)]
        return {
            name
            for name in named
            if any(text in repr(row) for row in db.execute(f"SELECT * FROM {name}"))  # noqa: S608 - our own table
        }


def files_with(folder: Path, text: str) -> list[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file.name for file in files if text.encode() in content(file)]


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
    monkeypatch.setenv("SWAPGATE_SECRET", "SEEDsecret-0123456789abcdef")

    def echo_headers(request: ReceivedRequest) -> ScriptedTurn:
        return error(
            400 if "400" in str(request.json["messages"]) else 401, str(request.headers)
        )

    with agents_site(tmp_path, with_openai=True, with_control=True) as site:
        site.upstream.turns |= {"gpt-4o-mini": echo_headers, "sim-base": completion()}
        yield site


@pytest.mark.req("E2", "C8")
def test_no_key_is_in_prompts_transcripts_errors_logs_or_files(
    leaky: AgentsSite, tmp_path: Path
) -> None:
    site, world = leaky, leaky.world
    mine, approver = {"authorization": f"Bearer {world.key}"}, admin(site)
    seeds = [SEED, "SEEDsecret-0123456789abcdef", world.key]
    seeds.append(approver["authorization"].removeprefix("Bearer "))
    answers: list[httpx.Response] = []

    def post(path: str, body: object, headers: dict[str, str]) -> httpx.Response:
        answers.append(site.client.post(path, json=body, headers=headers))
        return answers[-1]

    for model, headers in (("chat", mine), ("openai:gpt-4o-mini", approver)):
        body = {"name": "support", "model": model, "config": {"fallbackModel": "chat"}}
        if model == "chat":
            body.pop("config")
        agent = good(post("/agents", body, headers))["id"]
        session = good(post(f"/agents/{agent}/sessions", {"userId": "u"}, headers))["id"]
        place = f"/agents/{agent}/sessions/{session}/messages"
        for text in ("hello", "tell me 400"):
            for streams in (False, True):
                post(place, {"role": "user", "content": text, "stream": streams}, headers)
        answers.append(site.client.get(place, headers=headers))
        answers.append(site.client.get(f"/agents/{agent}", headers=headers))
        path = f"/agents/{agent}/sessions/{session}"
        good(post(f"{path}/switch_model", {"action": "list"}, headers))
        wanted = {"action": "switch", "model": "sim" if model != "chat" else "gpt-4o-mini"}
        request = post(f"{path}/switch_model", wanted, headers).json().get("request")
        answers.append(site.client.get(f"{path}/switch_requests", headers=headers))
        if request:
            ctx = world.installation.context
            assert ctx.approval_links is not None
            link = ctx.approval_links.link(switches.load_switch(ctx, request))
            answers.append(httpx.get(link))
    for wrong in ({"authorization": f"Bearer {SEED}"}, {"authorization": f"Bearer {SEED} x"}):
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


LITERAL = Target("sim", "sim-better")
NAME = f"@{LITERAL.name}"
GRANT = "gr_1"
# Of a grant that the router does not know, or not yet.
NOT_SERVED = "model_not_ready"


@dataclass(frozen=True)
class Calls:
    world: Routed
    key: str

    async def ask(self, asked: ModelCallRequest) -> ModelCallAnswer:
        installation = self.world.installation
        calls = RouterModelCalls(
            self.world.url, installation.secret, installation.clock, grant_arrives_s=0.0
        )
        try:
            return await calls.ask(asked)
        finally:
            await calls.aclose()

    def served(self, **changes: str) -> ServedBy:
        asked = {"role": "user", "content": "Colour number 3?"}
        model = changes.pop("model", NAME)
        caller = replace(AgentCaller("ag_1", "se_1", self.key, GRANT), **changes)
        return asyncio.run(self.ask(ModelCallRequest(model, (asked,), caller, 60.0))).served

    def refusal(self, **changes: str) -> str:
        try:
            self.served(**changes)
        except CallFailed as refused:
            return refused.code
        return ""


def grant_target(world: Routed) -> None:
    now = world.installation.clock.now()
    by_route = ModelChoice(ROUTE, ModelKind.ROUTE, route=ROUTE)
    agent = Agent("ag_1", "helper", by_route, now, now)
    with world.installation.store.write() as tx:
        Routing(tx).add_target(LITERAL)
        Agents(tx).add(agent)
        Sessions(tx).add(AgentSession("se_1", agent.id, by_route, now, now))
        AgentGrants(tx).add(
            AgentGrant(
                id=GRANT,
                agent=agent.id,
                target=LITERAL.id,
                target_name=LITERAL.name,
                kind=GrantKind.BASELINE,
                granted_by="ada",
                granted_with=None,
                reason="the agent was created with it",
                created_at=now,
                expires_at=now + timedelta(hours=1),
            )
        )


@pytest.mark.req("C5", "E1", "E2")
@pytest.mark.verify
def test_a_signed_grant_opens_its_target_until_it_is_revoked_and_nothing_else(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        world.start()
        with world.installation.store.read() as tx:
            key = ApiKeys(tx).by_hash(key_hash(world.key, world.installation.secret))
        assert key is not None
        calls = Calls(world, key.id)
        assert calls.refusal(grant="") == "model_not_found"
        # The same message may succeed later, once the router has heard of the grant.
        with pytest.raises(NobodyAnswered, match="send the message again") as not_yet:
            calls.served()
        assert (not_yet.value.status, not_yet.value.retryable) == (503, True)

        grant_target(world)
        eventually(lambda: not calls.refusal())

        served = calls.served()
        assert (served.route, served.target) == (NAME, LITERAL.name)
        assert calls.refusal(session="se_2") == ""  # the grant is the whole agent's
        assert calls.refusal(agent="ag_2") == NOT_SERVED
        assert calls.refusal(key="k_gone") == "invalid_agent_header"

        # A router that starts without its database knows the grant as well.
        world.kill()
        database = tmp_path / "swapgate.db"
        hidden = database.rename(tmp_path / "away.db")
        world.start()
        assert calls.refusal() == ""
        hidden.rename(database)
        eventually(lambda: world.readyz() == "ok")

        with world.installation.store.write() as tx:
            AgentGrants(tx).revoke(GRANT, world.installation.clock.now())
        eventually(lambda: calls.refusal() == NOT_SERVED)
        assert calls.refusal(model=ROUTE) == ""

        assert world.place.terminate("router") == 0
        today = world.installation.clock.now().date()
        with world.installation.store.read() as tx:
            literal = Observations(tx).traffic(since=EVER, route=NAME)
            spends = Observations(tx).spends(since=today - timedelta(days=1), keys=[key.id])
        assert {row.target for row in literal} == {LITERAL.id}
        asked = world.recorded() + sum(row.requests for row in literal)
        assert sum(spend.requests for spend in spends) == asked
