"""`AgentsRequest` is what a handler of the agents API gets: the client, the installation and
the turns of this process.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from harness.app.agents.turn_service import ControlPlane, TurnService
from harness.app.installation import Installation
from harness.control.agents import agents, sessions
from harness.control.agents.client import AgentsClient
from harness.control.agents.turn_runner import TurnRunner
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession


@dataclass(frozen=True)
class AgentsRequest:
    client: AgentsClient
    installation: Installation
    http: Request

    @property
    def service(self) -> TurnService | None:
        """The turns of this process; None in the control plane, which runs no turns."""
        service: TurnService | None = self.http.app.state.service
        return service

    @property
    def turns(self) -> TurnRunner:
        assert self.service is not None  # noqa: S101 - the control plane serves no sessions
        return self.service.turns

    @property
    def control(self) -> ControlPlane | None:
        """The control plane, which signs; None where this process signs itself."""
        return None if self.service is None else self.service.control

    @property
    def ctx(self) -> Context:
        return self.installation.context

    def require_agent(self, id_: str) -> Agent:
        return agents.load_agent(self.ctx, self.client, id_)

    def require_session(self, agent: str, id_: str) -> AgentSession:
        self.require_agent(agent)
        return sessions.load_session(self.ctx, self.client, agent, id_)


def _agents_request(request: Request) -> AgentsRequest:
    return AgentsRequest(request.state.client, request.app.state.installation, request)


AgentsRequestParam = Annotated[AgentsRequest, Depends(_agents_request)]
