"""An agent's session that waits for a person's decision about another model."""

from harness.agents import agents, switches
from harness.agents.agents import AgentsClient
from harness.agents.switch_request import ModelSwitchRequest
from harness.frame.people.access import SYSTEM
from harness.operations.context import Context
from harness.routing.agent import ModelChoice, ModelKind, literal_choice


def waiting_switch(ctx: Context, model: str = "sim/better") -> ModelSwitchRequest:
    client = AgentsClient.of_person(SYSTEM)
    chat = ModelChoice("chat", ModelKind.ROUTE, route="chat")
    agent = agents.create_agent(ctx, client, "helper", chat)
    session = agents.open_session(ctx, client, agent.id, "user-7")
    wanted = literal_choice(model, model)
    return switches.request_switch(ctx, session.id, (wanted,), "it is cleverer")
