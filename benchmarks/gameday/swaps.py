"""The swaps of the game day, proposed and watched beside what is broken, and who leads.

`support`: a better model. `orders`: a worse one first, which the gate rejects; then one that is
better in the suite and fails its users, which the canary rolls back.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from subprocess import SubprocessError
from typing import Final

import psycopg

from benchmarks.gameday.processes import NotReady, now_s
from benchmarks.gameday.town import Town

PHASES: Final = "SELECT id, phase FROM proposal"
OVER: Final = frozenset({"promoted", "rejected", "rolled_back", "cancelled"})
# By candidate how its proposal has to end.
WANTED: Final[Mapping[str, str]] = {
    "better": "promoted", "worse": "rejected", "fragile": "rolled_back",
}  # fmt: skip


@dataclass
class Swaps:
    """phases: by candidate each phase with when it was first seen, Unix time. terms: each
    term's owner, as it was seen. faults: what must not happen.
    """

    town: Town
    proposals: dict[str, str] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    leaders: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _spoiled: bool = False

    def run(self) -> None:
        """Until it is stopped: a turn each second. What the database cannot tell now is asked
        in the next turn.
        """
        while not self.stopping.wait(1.0):
            try:
                self._note_and_propose()
            except (psycopg.Error, NotReady, OSError, SubprocessError):
                continue

    def _note_and_propose(self) -> None:
        self._note_leader()
        if "better" not in self.proposals:
            self._propose("support", "better")
        elif "worse" not in self.proposals:
            self._propose("orders", "worse")
        elif self.phase("worse") in OVER and "fragile" not in self.proposals:
            self._propose("orders", "fragile")
        phases = dict(self.town.rows(PHASES))
        for candidate, proposal in self.proposals.items():
            seen = self.phases.setdefault(candidate, {})
            seen.setdefault(phases[proposal], now_s())
        if self.phase("fragile") == "canary" and not self._spoiled:
            self.town.switch("PUT", "fragile", {"kind": "status", "status": 500})
            self._spoiled = True
        if self.phase("fragile") == "rolled_back" and self._spoiled:
            self.town.switch("DELETE", "fragile")
            self._spoiled = False

    def _note_leader(self) -> None:
        leader = self.town.leading()
        if leader and leader != (self.leaders or [""])[-1]:
            self.leaders.append(leader)

    def _propose(self, route: str, candidate: str) -> None:
        words = ("proposal", "create", route, f"near/{candidate}", "--reason", "game day")
        made = self.town.command(*words).stdout
        self.proposals[candidate] = next(
            line.partition(" ")[0] for line in made.splitlines() if line.endswith(" proposed")
        )

    def phase(self, candidate: str) -> str:
        """The last that was seen; empty before the proposal."""
        return next(reversed([*self.phases.get(candidate, {})]), "")

    def over(self) -> bool:
        return all(self.phase(candidate) in OVER for candidate in WANTED)
