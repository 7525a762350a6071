"""Valid records of agents: an agent, its session, a turn, a switch request, a grant."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from harness.agents.message import MessageRole, MessageState, SessionMessage
from harness.agents.records import Agents, Sessions
from harness.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.app.store.store import Store
from harness.frame.records.transaction import Transaction
from harness.providers.records import Targets
from harness.routing.agent import (
    Agent,
    AgentGrant,
    AgentSession,
    AgentTool,
    GrantKind,
    ModelChoice,
    ModelKind,
    literal_choice,
)
from tests.support.store.records import LATER, NEW, NOW, ROUTE

BY_ROUTE = ModelChoice(ROUTE, ModelKind.ROUTE, route=ROUTE)
LITERAL = literal_choice("sim:new-1", NEW.name)
AGENT = Agent(
    id="ag_1",
    name="helper",
    model=BY_ROUTE,
    created_at=NOW,
    updated_at=NOW,
    description="Sorts tickets.",
    instructions="You sort tickets.",
    tools=(
        AgentTool("switch_model"),
        AgentTool("close", {"type": "object"}, "Closes one."),
    ),
    fallback_model=LITERAL,
    data_class="internal",
    owner_key="k_1",
)
SESSION = AgentSession(
    id="se_1",
    agent=AGENT.id,
    model=BY_ROUTE,
    created_at=NOW,
    last_at=NOW,
    user_id="user-7",
    metadata={"ticket": 7},
    turn="tu_1",
    owner="here#1",
    lease_until=NOW + timedelta(seconds=30),
)
GRANT = AgentGrant(
    id="gr_1",
    agent=AGENT.id,
    target=NEW.id,
    target_name=NEW.name,
    kind=GrantKind.BASELINE,
    granted_by="ada",
    granted_with="k_2",
    reason="the agent was created with it",
    created_at=NOW,
    expires_at=LATER,
    data_class="internal",
)
REQUEST = ModelSwitchRequest(
    id="sw_1",
    agent=AGENT.id,
    session=SESSION.id,
    model_requested="new",
    targets=(NEW.name,),
    reason="the ticket is long",
    asked_at=NOW,
    expires_at=NOW + timedelta(minutes=30),
    facts=({"name": "Price", "text": "$1.00 in"},),
)
ANSWERING = replace(
    GRANT,
    id="gr_2",
    kind=GrantKind.SWITCH,
    session=SESSION.id,
    request=REQUEST.id,
)
APPROVED = replace(
    REQUEST,
    state=SwitchState.APPROVED,
    decided_at=NOW + timedelta(minutes=1),
    decided_by="ada",
    decided_with="k_2",
    decision_reason="go on",
)


def message(position: int = 1, **changes: Any) -> SessionMessage:
    user = SessionMessage(
        session=SESSION.id,
        position=position,
        id=f"ms_{position}",
        role=MessageRole.USER,
        created_at=NOW,
        content="Where does this ticket go?",
        done_at=NOW,
        turn=SESSION.turn,
    )
    return replace(user, **changes)


def answer(position: int = 2, **changes: Any) -> SessionMessage:
    under_way = {
        "role": MessageRole.ASSISTANT,
        "state": MessageState.STREAMING,
    }
    return message(position, **{"content": "", "done_at": None} | under_way | changes)


def add_agent(tx: Transaction) -> None:
    """With a session in which a turn runs. The targets are stored already."""
    Agents(tx).add(AGENT)
    Sessions(tx).add(SESSION)


def with_agent(store: Store) -> Store:
    with store.write() as tx:
        Targets(tx).add(NEW)
        add_agent(tx)
    return store
