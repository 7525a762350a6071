"""The story of a team without evals: its log becomes a suite, a judge compares both models'
answers, people label pairs, and a canary follows.

The log, the judge and the people are simulated. The people are scripts: they see what
`swapproof label` shows, and prefer an answer that names a day.
"""

import json
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from harness.app.installation import Installation
from harness.app.traffic_suite import DrawRequest, draw_suite
from harness.frame.people.access import OPERATOR, Actor, Role
from harness.operations import keys
from harness.operations.context import Context
from harness.proposals.labels import label_pairs
from harness.proposals.labels.label_pairs import ShownPair
from harness.proposals.labels.labelling import LabelChoice
from harness.routing.control import routes
from harness.routing.route_settings import RouteSuite

LOGGED_ROUTE: Final = "chat-parcel"
LOGGED_SUITE: Final = "parcels"
LOGGED_INCUMBENT: Final = "sim/comet-1"
CHEAPER: Final = "sim/comet-mini"
JUDGE: Final = "sim/critic-1"
PEOPLE: Final = ("ada", "ben")
PREFERRED: Final = "arrives on Friday"
_CALLERS: Final = 50
_DAYS: Final = 4
_THREADS: Final = 8
_TIMEOUT_S: Final = 60
# Labels of each person in one turn of the show, which follows the other stories meanwhile.
_AT_ONCE: Final = 5


def draw_log(installation: Installation, api_base: str, folder: Path) -> str:
    """Writes the team's log, draws the suite from it, and lets the route use the suite. Returns
    a sentence.

    Args:
        api_base: of the simulated provider.
    """
    file = folder / "spend.jsonl"
    model = LOGGED_INCUMBENT.partition("/")[2]
    _write_log(file, f"{api_base}/chat/completions", model, installation.clock.now())
    drawn = draw_suite(
        installation,
        OPERATOR,
        DrawRequest(
            LOGGED_SUITE,
            LOGGED_ROUTE,
            str(file),
            JUDGE,
            judge_anyway="a simulated model has no maker",
        ),
    )
    routes.change_settings(
        installation.context,
        OPERATOR,
        LOGGED_ROUTE,
        lambda before: replace(before, suites=(RouteSuite(LOGGED_SUITE),)),
        reason="make demo",
    )
    return f"{LOGGED_ROUTE}: has no evals, so its log becomes the suite: {drawn.summary}"


def _write_log(file: Path, url: str, model: str, now: datetime) -> None:
    """Asks the incumbent, and writes the answers as LiteLLM logs them, over some days."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)

    def build_row(number: int) -> Mapping[str, Any]:
        messages = [{"role": "user", "content": f"Where is my parcel {1000 + number}?"}]
        body = {"model": model, "messages": messages}
        return {
            "request_id": f"r{number}",
            "call_type": "acompletion",
            "startTime": (midnight - timedelta(days=1 + number % _DAYS)).isoformat(),
            "model": model,
            "response": _ask(url, body),
            "proxy_server_request": body,
            "status": "success",
            "end_user": f"caller-{number}",
        }

    with ThreadPoolExecutor(_THREADS) as threads:
        rows = list(threads.map(build_row, range(_CALLERS)))
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _ask(url: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310 - loopback
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        return json.load(answer)


@dataclass
class ScriptedPeople:
    """People who label a proposal's pairs, a few in each turn.

    labelling: empty before the first turn. verdict: a sentence; empty before the end.
    """

    actors: tuple[Actor, ...]
    labelling: str = ""
    verdict: str = ""

    @classmethod
    def create(cls, installation: Installation) -> "ScriptedPeople":
        actors = []
        for name in PEOPLE:
            _, text = keys.create_key(
                installation.context,
                OPERATOR,
                name,
                secret=installation.secret,
                role=Role.PROPOSER,
            )
            actors.append(
                keys.authenticate(installation.store, text, secret=installation.secret)
            )
        return cls(tuple(actors))

    def describe(self) -> str:
        return f"scripted people labelled its log's pairs. {self.verdict or 'No verdict yet'}"

    def take_turn(self, ctx: Context, proposal: str) -> None:
        """Starts the labelling, or labels a few pairs."""
        if not self.labelling:
            started = label_pairs.start_labelling(ctx, self.actors[0], proposal, people=PEOPLE)
            self.labelling = started.id
            self.verdict = started.verdict
            return
        for actor in self.actors * _AT_ONCE:
            shown = label_pairs.show_next_pair(ctx, actor, self.labelling)
            progress = shown.progress
            if shown.pair is not None:
                number = shown.pair.number
                choice = _choose(shown.pair)
                progress = label_pairs.give_label(ctx, actor, self.labelling, number, choice)
            if progress.ended:
                self.verdict = progress.verdict
                break


def _choose(pair: ShownPair) -> LabelChoice:
    a_is_good = PREFERRED in pair.a
    b_is_good = PREFERRED in pair.b
    if a_is_good == b_is_good:
        return LabelChoice.TIE
    return LabelChoice.A if a_is_good else LabelChoice.B
