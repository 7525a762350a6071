"""Says where each story of the demo can be seen: the page of the dashboard, and the command
with the `--config` that it needs.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from harness.app.demo.scenarios import OUTAGE_ROUTE, YOUR_CANDIDATE, YOUR_ROUTE, Scenario
from harness.domain.proposals.proposal import ProposalPhase


@dataclass(frozen=True, slots=True)
class StoryLinks:
    """Makes addresses and commands of a running demo."""

    dashboard: str  # its address
    config: Path

    def page(self, path: str, **query: str) -> str:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{self.dashboard}/{path}{'?' if words else ''}{words}"

    def command(self, *words: str) -> str:
        """A command to paste: the program as it was called, the file, the words."""
        called = sys.argv[0] if Path(sys.argv[0]).name == "swapgate" else "swapgate"
        return " ".join([called, "--config", str(self.config), *words])

    def of_story(self, story: Scenario, proposal: str) -> list[str]:
        """Title, page and command of a proposal's story. proposal: its id."""
        route = story.route
        if story.ends == {ProposalPhase.REJECTED}:
            page = self.page("compare", id=proposal)
            command = self.command("proposal", "show", proposal)
        else:
            page = self.page("canary", route=route)
            command = self.command("canary", "status", route)
        return [f"{route}: {story.title}", f"    {page}", f"    {command}"]

    def of_outage(self) -> list[str]:
        """Title, page and command of the story of the lost provider."""
        return [
            f"{OUTAGE_ROUTE}: its provider is killed under traffic, and its backup answers",
            f"    {self.page('providers')}",
            f"    {self.command('route', 'measured', OUTAGE_ROUTE)}",
        ]

    def of_phase(self, route: str, phase: ProposalPhase, proposal: str) -> str:
        """What the visitor may do about a proposal now."""
        if phase is ProposalPhase.AWAITING_APPROVAL:
            return (
                f"approve it on {self.page('proposals')} or by "
                f"`{self.command('proposal', 'approve', proposal)}`"
            )
        if phase is ProposalPhase.CANARY:
            return (
                f"watch it on {self.page('canary', route=route)}; abort it there or by "
                f"`{self.command('canary', 'abort', route, '--reason', 'tried')}`"
            )
        return f"see {self.page('compare', id=proposal)}"

    def your_story(self, *, break_key: str) -> list[str]:
        """What the visitor can play. break_key: empty where no key is read."""
        create = self.command("proposal", "create", YOUR_ROUTE, YOUR_CANDIDATE)
        lines = [
            f"1. propose a swap of {YOUR_ROUTE} to {YOUR_CANDIDATE}:",
            f"    {self.page('proposals')}, or",
            f"    {create} --reason mine",
            "2. once it has passed, approve it; how is said here",
            "3. watch its canary, and let it be promoted, or abort it",
        ]
        if break_key:
            lines.append(
                f"{break_key}  kills the provider of {OUTAGE_ROUTE}, and brings it back"
            )
        return lines
