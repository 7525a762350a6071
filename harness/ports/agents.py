"""Protocols of agents as they are stored: agents, sessions with their messages and turns,
switch requests, grants (signed, and part of a router's snapshot), and answers by idempotency
key. All but the grants are the agents process's own working rows.

Protocols of what a session's turn calls: models, through the router, and tools that run on
the server.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from harness.domain.agents.agent import Agent, AgentSession, AgentTool
from harness.domain.agents.grant import AgentGrant
from harness.domain.agents.message import MessageRecord, MessageToolCall
from harness.domain.agents.model_call import (
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
    ToolCaller,
    ToolResult,
)
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.agents.turn import OfferedTool
from harness.domain.agents.turn_lease import IdempotentAnswer, SessionTurn, TurnState


class Agents(Protocol):
    def add(self, agent: Agent) -> None: ...

    def get(self, id_: str) -> Agent:
        """A deleted one, too. Raises NotFound."""
        ...

    def lock(self, id_: str) -> Agent:
        """Loads an agent, as `get` does, and lets no other unit of work past before this one
        ends.
        """
        ...

    def save(self, agent: Agent) -> None: ...

    def forget(self, before: datetime) -> int:
        """Delete those deleted before that nothing refers to any more; how many."""
        ...


class Sessions(Protocol):
    def add(self, session: AgentSession) -> None: ...

    def get(self, id_: str) -> AgentSession:
        """Loads a session. Raises NotFound."""
        ...

    def lock(self, id_: str) -> AgentSession:
        """Loads a session, as `get` does, and lets no other unit of work past before this one
        ends.
        """
        ...

    def save(self, session: AgentSession) -> None:
        """Saves the session's model and its state."""
        ...

    def charge(self, id_: str, cost_usd: float, now: datetime) -> None:
        """Add to what an open session cost; now: of its newest message."""
        ...

    def open_ids(self, agent: str) -> Sequence[str]:
        """Lists the ids of an agent's open sessions."""
        ...

    def children(self, parent: str) -> Sequence[str]:
        """Ids of the sessions that it spawned; closed ones too."""
        ...

    def of_user(self, user_id: str) -> Sequence[str]:
        """Ids of the user's sessions, what they spawned included, each before its parent."""
        ...

    def idle_since(self, before: datetime, *, limit: int) -> Sequence[str]:
        """Ids of those whose newest message is older, and that have no children stored."""
        ...

    def delete(self, id_: str) -> None:
        """A closed one without children, with its messages, turns and stored answers."""
        ...


class SessionMessages(Protocol):
    def add(self, record: MessageRecord) -> None:
        """Adds a message at the position that follows the last one."""
        ...

    def list(self, session: str) -> Sequence[MessageRecord]:
        """Lists a session's messages by position."""
        ...

    def last_position(self, session: str) -> int:
        """0 for a session without messages."""
        ...

    def streaming(self, session: str) -> MessageRecord | None:
        """The answer that is under way."""
        ...

    def end(self, record: MessageRecord) -> None:
        """An answer under way has ended. Raises StaleWrite where it had ended before."""
        ...


class Turns(Protocol):
    def add(self, turn: SessionTurn) -> None:
        """Adds a turn. Raises SessionBusy while the session has one that runs."""
        ...

    def get(self, id_: str) -> SessionTurn:
        """Loads a turn. Raises NotFound."""
        ...

    def running(self, session: str) -> SessionTurn | None: ...

    def all_running(self) -> Sequence[SessionTurn]:
        """The one whose lease ends first comes first."""
        ...

    def renew(self, id_: str, *, owner: str, until: datetime) -> bool:
        """Whether it runs, and is this owner's, still."""
        ...

    def end(self, id_: str, state: TurnState, now: datetime) -> None:
        """Ends a turn in the given state. Raises StaleWrite where it does not run any more."""
        ...


class SwitchRequests(Protocol):
    def add(self, request: ModelSwitchRequest) -> None: ...

    def get(self, id_: str) -> ModelSwitchRequest:
        """Loads a switch request. Raises NotFound."""
        ...

    def decide(self, decided: ModelSwitchRequest) -> None:
        """Saves the request's state and who decided. An approval comes after its grants."""
        ...

    def of_session(self, session: str) -> Sequence[ModelSwitchRequest]:
        """Lists a session's switch requests of all states, newest first."""
        ...

    def pending(self, *, session: str | None = None) -> Sequence[ModelSwitchRequest]:
        """The one that expires first comes first; those that have expired, too.

        In a unit of work that writes, nobody else decides before its end.
        """
        ...

    def blank(self, session: str) -> None:
        """Take the agents' words out of those that are decided."""
        ...


class AgentGrants(Protocol):
    """Written by who consents: they are signed with control's key. None is ever deleted."""

    def add(self, grant: AgentGrant) -> None: ...

    def get(self, id_: str) -> AgentGrant:
        """Loads a grant. Raises NotFound."""
        ...

    def revoke(self, id_: str, now: datetime) -> AgentGrant:
        """Again changes nothing. Raises NotFound."""
        ...

    def not_revoked(self, *, agent: str | None = None) -> Sequence[AgentGrant]:
        """Lists the grants that nobody revoked, newest first; expired ones too. Raises
        SignatureInvalid where one was changed.
        """
        ...


class IdempotentAnswers(Protocol):
    def get(self, scope: str, key: str) -> IdempotentAnswer | None: ...

    def add(self, answer: IdempotentAnswer) -> None:
        """Adds the key of a request, and its answer where it has one. Raises Conflict where the
        key is taken.
        """
        ...

    def save(self, answer: IdempotentAnswer) -> None:
        """Saves the key's turn, and its answer, once. Raises StaleWrite where it is answered
        already.
        """
        ...

    def of_turn(self, turn: str) -> IdempotentAnswer | None: ...

    def forget(self, before: datetime) -> int:
        """Delete those that are older; how many."""
        ...


class ModelCalls(Protocol):
    """Asks models. Belongs to one event loop."""

    async def ask(
        self,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        """The whole answer. on_piece: gets each piece as it comes. Raises a kind of CallFailed,
        and InputError for what cannot be sent; cancelling it ends the provider's work.
        """
        ...

    async def aclose(self) -> None: ...


class ToolRuntime(Protocol):
    """Runs tools on the server. Belongs to one event loop."""

    def has(self, tool: AgentTool) -> bool:
        """Whether an agent may be given it: a built-in tool, or one that a configured server
        may have.
        """
        ...

    def runs(self, name: str) -> bool:
        """Whether a tool that it offered has this name."""
        ...

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        """Lists those among an agent's tools that it runs, as the model is told of them. What a
        server that is away would offer is left out.
        """
        ...

    async def run(
        self, call: MessageToolCall, caller: ToolCaller, timeout_s: float
    ) -> ToolResult:
        """Runs a tool and returns its result. Raises nothing but its cancellation: what goes
        wrong is a result that says so.
        """
        ...
