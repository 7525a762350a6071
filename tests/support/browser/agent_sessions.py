"""Builds an installation in which agents have held conversations, by real use cases."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.agents import agents, turns
from harness.agents.agents import AgentsClient
from harness.agents.message import (
    IncomingMessage,
    MessageRole,
    MessageState,
    MessageToolCall,
    MessageUsage,
    ServedBy,
)
from harness.agents.turns import BegunTurn
from harness.app import secret_files, seed
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.frame.people.access import SYSTEM, Role
from harness.operations import keys
from harness.operations.context import Context
from harness.routing.agent import (
    Agent,
    AgentSession,
    AgentTool,
    ModelChoice,
    ModelKind,
)

CONFIG: Final = """
home: state
providers:
  north:
    kind: sim
    api_base: http://127.0.0.1:9/v1
    prices: {scout-1: {input_usd_per_mtok: 2, output_usd_per_mtok: 8}}
  south:
    kind: sim
    api_base: http://127.0.0.1:9/v1
    prices:
      sage-1: {input_usd_per_mtok: 10, output_usd_per_mtok: 40}
routes:
  chat: {incumbent: north/scout-1, fallbacks: [north/scout-2]}
"""
SCOUT = "north/scout-1"
UNPRICED = "north/scout-2"
OPERATOR: Final = AgentsClient.of_operator()
OWNER: Final = "here#1"


def configure(home: Path, **agents_section: object) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    file = home / "swapproof.yaml"
    fields = ", ".join(f"{key}: {str(value).lower()}" for key, value in agents_section.items())
    file.write_text(f"{CONFIG}agents: {{{fields}}}\n", encoding="utf-8")
    with opened(file) as installation:
        secret_files.create_encryption_file(installation.settings)
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
    return file


@contextmanager
def opened(file: Path) -> Iterator[Installation]:
    installation = open_installation(file, create_secret=True)
    try:
        yield installation
    finally:
        installation.close()


def create_key(
    file: Path,
    name: str,
    role: Role = Role.ADMIN,
) -> str:
    with opened(file) as installation:
        ctx = installation.context
        secret = installation.secret
        return keys.create_key(
            ctx,
            SYSTEM,
            name,
            secret=secret,
            role=role,
        )[1]


def create_agent(
    ctx: Context,
    name: str = "concierge",
    route: str = "chat",
) -> Agent:
    choice = ModelChoice(route, ModelKind.ROUTE, route=route)
    spec: dict[str, Any] = {
        "name": name,
        "model": choice,
        "tools": (AgentTool("find", {"type": "object"}),),
    }
    return agents.create_agent(ctx, OPERATOR, **spec)


def open_session(
    ctx: Context,
    agent: Agent,
    user: str = "ada",
) -> AgentSession:
    return agents.open_session(ctx, OPERATOR, agent.id, user)


def converse(
    ctx: Context,
    session: str,
    text: str,
    answer: str,
    *,
    target: str = SCOUT,
    cost_usd: float | None = 0.01,
    calls: Sequence[MessageToolCall] = (),
    response_to: str = "",
    **answer_fields: Any,
) -> None:
    role = MessageRole.TOOL if response_to else MessageRole.USER
    incoming = IncomingMessage(role, text, response_to)
    begun = turns.begin_turn(ctx, OWNER, session, incoming)
    assert isinstance(begun, BegunTurn)
    under_way = turns.begin_answer(ctx, begun.session, model="chat")
    done = replace(
        under_way,
        state=MessageState.COMPLETE,
        content=answer,
        tool_calls=tuple(calls),
        served=ServedBy("chat", "chat", target, "r_1"),
        usage=MessageUsage(1000, 500, 0, cost_usd),
    )
    ended = replace(done, **answer_fields)
    turns.record_step(
        ctx,
        begun.session,
        answer=ended,
        kept="",
    )
