"""Directs `swapgate demo agents` (`run_agents_demo`): an agent works on an order with a tool,
its provider fails and the router covers it, it asks for another model and a person approves,
it goes on in another protocol with all that was said, has three sub-tasks done on three
models, loses its provider's key, and its fallback answers.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness.app.database import upgrade_database
from harness.app.demo.agents_client import AGENT, AgentsDemoClient
from harness.app.demo.agents_environment import (
    COVER,
    FIRST,
    PORTS,
    SPARE_ROUTE,
    WANTED,
    AgentsDemoEnvironment,
)
from harness.app.demo.child_processes import make_folder, play_to_end
from harness.app.demo.display import DemoDisplay
from harness.app.demo.traffic import TrafficCounts
from harness.app.installation import Installation, open_installation
from harness.control.agents import queries, switches
from harness.control.operations import keys
from harness.control.providers import credentials, discovery
from harness.control.routing import seed
from harness.domain.agents.switch_request import SwitchState
from harness.domain.agents.switch_text import decision_text, switch_lines, switch_question
from harness.domain.operations.access import SYSTEM, Role
from harness.domain.operations.principals import OPERATOR
from harness.runtime import secret_files
from harness.runtime.processes.interruption import wait_for_interrupt

ORDER, CUSTOMER = "A-1815", "Ada Lovelace"
SUB_TASKS: Final = 3
LOOK_AGAIN_S: Final = 0.3
# Routers hear of a key that is gone within two seconds.
KEY_GOES_S: Final = 2.0
TRIES: Final = 8


def run_agents_demo(*, once: bool) -> int:
    """Returns 0 only when all went as it should."""
    stage = AgentsDemoEnvironment(make_folder())
    return play_to_end(stage, lambda: _play(stage, once=once))


def _play(stage: AgentsDemoEnvironment, *, once: bool) -> bool:
    screen = DemoDisplay(TrafficCounts())
    for note in stage.choose_ports(PORTS):
        screen.say(note)
    screen.say("three simulated providers and Swapgate's processes start: half a minute or so")
    stage.write_config()
    installation = open_installation(stage.config, create_secret=True)
    try:
        secret_files.make_encryption_file(installation.settings)
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
        stage.start_providers(installation)
        stage.start_swapgate()
        screen.say("the models say what a script has for them; all else is real")
        _, key = keys.create_key(
            installation.context,
            SYSTEM,
            "demo-approver",
            secret=installation.secret,
            role=Role.APPROVER,
        )
        story = AgentsStory(stage, installation, screen, once=once, approver_key=key)
        story.play()
        screen.lines("What was seen", story.checks)
        if not once:
            page = f"{stage.url('ui')}/sessions"
            screen.lines("See for yourself", [f"{page} (running until Ctrl-C)"])
            wait_for_interrupt()
        return story.ended_well
    finally:
        installation.close()


@dataclass
class AgentsStory:
    """The conversation, step by step."""

    stage: AgentsDemoEnvironment
    installation: Installation
    screen: DemoDisplay
    once: bool
    approver_key: str = field(repr=False)
    checks: list[str] = field(default_factory=list)
    ended_well: bool = True

    def play(self) -> None:
        self.client = AgentsDemoClient(self.stage.url("router"))
        self.client.open_session()
        self._work_with_a_tool()
        self._lose_the_provider()
        self._say("Write a letter to our lawyer about it, please.")
        if self._decide() and self._spawn():
            self._lose_the_key()

    def _work_with_a_tool(self) -> None:
        answer = self._say(
            f"I am {CUSTOMER}, and my order {ORDER} arrived broken. What can be done?"
        )
        good = answer["target"] == FIRST and "brass calculator" in answer["content"]
        self._check(f"{FIRST} used the application's tool, in OpenAI's protocol", good=good)

    def _lose_the_provider(self) -> None:
        pid = self.stage.kill("north")
        self.screen.say(f"provider north (pid {pid}) was killed with SIGKILL")
        answer = self._say("Which is faster?")
        good = answer["target"] == COVER and ORDER in answer["content"]
        self._check(f"the router covered it by {COVER}, and the agent saw nothing", good=good)

    def _spawn(self) -> bool:
        """Whether a person let the sub-tasks run."""
        ctx = self.installation.context
        listed = discovery.discover_models(ctx, OPERATOR, "backup").models
        self.screen.say(f"backup was asked for its models; it lists {len(listed)}")
        answer = self._say("Write the letter, and have its facts, law and tone checked first.")
        good = answer["target"] == WANTED
        self._check(f"{WANTED} goes on in Anthropic's protocol", good=good)
        if not self._decide():
            return False
        answer = self._say("Go on.")
        with ctx.store.read() as tx:
            children = tx.sessions.children(self.client.session)
        targets = [used.target for used in queries.load_model_usage(ctx, children)]
        self.screen.say(f"sub-tasks were done by {', '.join(targets)}")
        good = len(targets) == SUB_TASKS
        self._check("three sub-tasks ran on three models", good=good)
        good = _has_facts(answer)
        self._check(f"its letter names {CUSTOMER} and {ORDER}, from message 1", good=good)
        return True

    def _lose_the_key(self) -> None:
        credentials.remove_credential(self.installation.context, OPERATOR, "south")
        self.screen.say("the key of provider south was removed")
        for _ in range(TRIES):
            time.sleep(KEY_GOES_S)
            answer = self._say("Which order was it?")
            if answer["fallback"]:
                break
        fallback = answer["fallback"]
        if fallback:
            self.screen.say(f"instead of {fallback['from']}: {fallback['reason']}")
        good = bool(fallback) and answer["target"] == COVER and _has_facts(answer)
        self._check(f"fallbackModel {SPARE_ROUTE!r} took over, by {COVER}", good=good)

    def _say(self, text: str) -> dict[str, Any]:
        self.screen.say(f"user: {text}")
        answer = self.client.say(text)
        self.screen.say(f"{answer['target']}: {answer['content']}")
        return answer

    def _decide(self) -> bool:
        """Whether a person approves what waits; with `--once` the demo does, by the same use
        case.
        """
        ctx = self.installation.context
        with ctx.store.read() as tx:
            waiting = tx.switch_requests.pending()
        if not waiting:
            self._check("the agent asked a person", good=False)
            return False
        request = waiting[0]
        now = ctx.clock.now()
        facts = [f"{name}: {value}" for name, value in switch_lines(request, now)]
        self.screen.lines(switch_question(request, str(AGENT["name"])), facts)
        if self.once:
            switches.approve_switch(ctx, OPERATOR, request.id, "swapgate demo agents --once")
            self.screen.say("approved by the demo itself (--once)")
        else:
            page, key = f"{self.stage.url('ui')}/sessions", self.approver_key
            steps = [
                f"open {page}",
                f"sign in with the key {key} at the top of the page",
            ]
            self.screen.lines("Approve or reject it in the dashboard:", steps)
        while True:
            with ctx.store.read() as tx:
                decided = tx.switch_requests.get(request.id)
            if decided.state is not SwitchState.PENDING:
                break
            time.sleep(LOOK_AGAIN_S)
        good = decided.state is SwitchState.APPROVED
        self._check(decision_text(decided, decided.state), good=good)
        if not good:
            self.screen.say("the rest of the story needs that approval: it ends here")
        return good

    def _check(self, what: str, *, good: bool) -> None:
        self.checks.append(f"{'✓' if good else '✕'} {what}")
        self.ended_well = self.ended_well and good


def _has_facts(answer: Mapping[str, Any]) -> bool:
    """Whether it has what only the first message says."""
    return ORDER in answer["content"] and CUSTOMER in answer["content"]
