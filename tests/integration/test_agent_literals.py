import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from harness.app.agents import RouterModelCalls
from harness.domain.agents.agent import (
    Agent,
    AgentGrant,
    AgentSession,
    GrantKind,
    ModelChoice,
    ModelKind,
)
from harness.domain.agents.caller import AgentCaller
from harness.domain.agents.message import ServedBy
from harness.domain.agents.model_call import ModelCallAnswer, ModelCallRequest
from harness.domain.errors import CallFailed, NobodyAnswered
from harness.domain.operations.access import key_hash
from harness.domain.routing.target import Target
from tests.support.router.router_process import EVER, ROUTE, Routed, eventually, routed

pytestmark = [pytest.mark.req("C5", "E1", "E2"), pytest.mark.slow]

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
        tx.routing.add_target(LITERAL)
        tx.agents.add(agent)
        tx.sessions.add(AgentSession("se_1", agent.id, by_route, now, now))
        tx.agent_grants.add(
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


@pytest.mark.verify
def test_a_signed_grant_opens_its_target_until_it_is_revoked_and_nothing_else(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        world.start()
        with world.installation.store.read() as tx:
            key = tx.keys.by_hash(key_hash(world.key, world.installation.secret))
        assert key is not None
        calls = Calls(world, key.id)
        assert calls.refusal() == NOT_SERVED
        assert calls.refusal(grant="") == "model_not_found"
        assert calls.refusal(model=ROUTE) == ""
        # Whoever sends the message again may succeed, once the router has heard of the grant.
        with pytest.raises(NobodyAnswered, match="send the message again") as not_yet:
            calls.served()
        assert (not_yet.value.status, not_yet.value.retryable) == (503, True)

        grant_target(world)
        eventually(lambda: not calls.refusal())

        served = calls.served()
        assert (served.route, served.target) == (NAME, LITERAL.name)
        assert calls.refusal(session="se_2") == ""  # the grant is the whole agent's
        assert calls.refusal(agent="ag_2") == NOT_SERVED
        assert calls.refusal(grant="gr_2") == NOT_SERVED
        assert calls.refusal(key="k_gone") == "invalid_agent_header"
        with world.client() as client:
            assert [model.id for model in client.models.list()] == [ROUTE]

        # A router that starts without its database knows the grant as well.
        world.kill()
        database = tmp_path / "swapgate.db"
        hidden = database.rename(tmp_path / "away.db")
        world.start()
        assert calls.refusal() == ""
        assert calls.refusal(agent="ag_2") == NOT_SERVED
        hidden.rename(database)
        eventually(lambda: world.readyz() == "ok")

        with world.installation.store.write() as tx:
            tx.agent_grants.revoke(GRANT, world.installation.clock.now())
        eventually(lambda: calls.refusal() == NOT_SERVED)
        assert calls.refusal(model=ROUTE) == ""

        assert world.place.terminate("router") == 0
        today = world.installation.clock.now().date()
        with world.installation.store.read() as tx:
            literal = tx.observations.traffic(since=EVER, route=NAME)
            spends = tx.observations.spends(since=today - timedelta(days=1), keys=[key.id])
            assert tx.rollouts.live() == []
        assert {row.target for row in literal} == {LITERAL.id}
        by_route = world.recorded()
        assert by_route
        assert sum(spend.requests for spend in spends) == by_route + sum(
            row.requests for row in literal
        )
