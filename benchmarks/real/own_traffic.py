"""An act of the real run: a swap is proved by the route's own traffic and by labels.

The incumbent answers callers, Swapproof captures and draws their requests, the candidate
answers them too, and a script labels the pairs by a known truth.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import yaml

from benchmarks.real.orders import MOST_TOKENS
from benchmarks.real.schema_judge import JUDGE
from benchmarks.real.scripted_labels import ScriptedLabels, find_target, is_right, label_pairs
from benchmarks.real.traffic import Traffic
from harness.proposals.labels.label_items import is_equal
from harness.proposals.labels.label_verdicts import WAIT
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.swaps import ENDED, SHORT, phase, proposal, propose

if TYPE_CHECKING:
    from benchmarks.real.story import Story

ROUTE: Final = "desk"
SUITE: Final = "desk-traffic"
CALLERS: Final = 60
MARGIN: Final = 0.05
POLICY: Final[Document] = {
    **SHORT,
    "proof": "people",
    "gate": {**SHORT["gate"], "claim": "non_inferior", "margin": MARGIN},
}
NO_MAKER: Final = "a rule has no maker"
_THREADS: Final = 4
_EVALS_S: Final = 1_800.0
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True)
class TruePair:
    """A pair with its truth. share: the candidate's share of the win by right answers. judged:
    the judge's share. equal: whether the answers are mechanically equal.
    """

    share: float
    judged: float
    equal: bool


def route_settings(incumbent: str) -> Document:
    return {
        "incumbent": incumbent,
        "policy": "people",
        "capture": "100%",
        "capture_per_day": CALLERS,
    }


def prove_by_own_traffic(story: "Story", candidate: str) -> None:
    """Plays the act with its checks."""
    place = story.place
    asking = ask_as_callers(place)
    seen = f"{len(asking.answers)} streams, {len(asking.failed)} failed"
    story.check("the incumbent answered callers", seen, good=not asking.failed)
    captures = await_captures(place)
    story.check("Swapproof captured the requests", captures, good=captures == CALLERS)
    move_captures_to_yesterday(place)
    drawn = place.json(
        *("suite", "draw", SUITE, "--route", ROUTE, "--from", "captures"),
        *("--judge", JUDGE, "--judge-anyway", NO_MAKER),
    )
    limit_answers(place)
    story.check(
        "`suite draw --from captures`",
        f"{drawn['items']} pairs",
        good=drawn["items"] == CALLERS,
    )
    place.cli("route", "settings", ROUTE, "--suite", SUITE, "--reason", "our traffic")
    number = propose(place, ROUTE, candidate)
    await_wait(place, number)
    pairs = load_true_pairs(place)
    story.check("the truth", describe_truth(pairs), good=len(pairs) > 0)
    labels = label_pairs(place, ROUTE)
    story.check(
        f"`swapproof label` after {labels.labels} labels {describe_keys(labels)}",
        labels.verdict,
        good=is_true(labels, pairs),
    )
    wanted = "canary" if labels.passed else "rejected"
    ended = await_end(place, number, wanted)
    story.check("the proposal follows the labels", ended, good=ended == wanted)
    if ended == "canary":
        place.cli("canary", "abort", ROUTE, "--reason", "the act is over")


def ask_as_callers(place: Installation) -> Traffic:
    """Sends one request from each of CALLERS callers, _THREADS at a time."""
    asking = Traffic(place, ROUTE)
    left = iter(range(CALLERS))
    lock = threading.Lock()

    def ask_on() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            asking.answers.append(asking.ask())

    threads = [threading.Thread(target=ask_on) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return asking


def await_captures(place: Installation) -> int:
    """Waits until the captures are stored. Returns their number."""

    def stored() -> int:
        query = "SELECT count(*) AS n FROM captured WHERE route = :route"
        return int(place.database.rows(query, route=ROUTE)[0]["n"])

    eventually(lambda: stored() >= CALLERS, f"fewer than {CALLERS} captures")
    return stored()


def move_captures_to_yesterday(place: Installation) -> None:
    """Sets the times of the captures back by a day: a draw takes whole days that have ended."""
    place.database.overpower(
        "UPDATE captured SET at = at - :day WHERE route = :route", day=_DAY_US, route=ROUTE
    )


def limit_answers(place: Installation) -> None:
    """Gives the suite the callers' limit of tokens, which a capture does not keep."""
    document = yaml.safe_load(place.config.read_text(encoding="utf-8"))
    document["suites"][SUITE]["max_output_tokens"] = MOST_TOKENS
    place.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def await_wait(place: Installation, number: str) -> None:
    """Waits until both models have answered and the proposal waits for labels."""

    def waits() -> bool:
        if phase(place, number) in ENDED:
            raise AssertionError(proposal(place, number))
        query = "SELECT 1 FROM audit_event WHERE action = :action AND subject = :subject"
        return bool(place.database.rows(query, action=WAIT, subject=f"proposal {number}"))

    eventually(waits, f"{number} does not wait for labels", wait_s=_EVALS_S)


def await_end(place: Installation, number: str, wanted: str) -> str:
    """Waits until the proposal is in the wanted phase. Returns the phase that it reached."""
    try:
        eventually(lambda: phase(place, number) == wanted)
    except AssertionError:
        return str(proposal(place, number))
    return wanted


def load_true_pairs(place: Installation) -> Sequence[TruePair]:
    """Loads the answers of both models, the judge's preferences, and the truth."""
    rows = place.database.rows(
        "SELECT s.item, s.prompt, s.answer, s.strict, t.provider FROM sample s"
        " JOIN eval_run r ON r.id = s.run JOIN target t ON t.id = r.target"
        " WHERE r.suite = :suite",
        suite=SUITE,
    )
    theirs = {row["item"]: row for row in rows if row["provider"] == "gemma"}
    pairs = []
    for ours in (row for row in rows if row["provider"] != "gemma"):
        other = theirs[ours["item"]]["answer"]
        target = find_target(ours["prompt"])
        gain = is_right(ours["answer"], target) - is_right(other, target)
        judged = 0.5 if ours["strict"] is None else float(ours["strict"])
        pairs.append(TruePair((1 + gain) / 2, judged, is_equal(ours["answer"], other)))
    return pairs


def describe_truth(pairs: Sequence[TruePair]) -> str:
    shares = [pair.share for pair in pairs]
    counts = [shares.count(share) for share in (1.0, 0.5, 0.0)]
    asked = [pair for pair in pairs if not pair.equal]
    both = np.corrcoef([pair.share for pair in asked], [pair.judged for pair in asked])
    return (
        f"by right answers, the candidate wins {counts[0]}, ties {counts[1]} and loses "
        f"{counts[2]} of {len(pairs)} pairs: a win share of {np.mean(shares):.2f}; "
        f"{len(pairs) - len(asked)} pairs are mechanically equal; in the others the judge's "
        f"preference correlates with the truth by {both[0, 1]:.2f}"
    )


def describe_keys(labels: ScriptedLabels) -> str:
    return "(" + ", ".join(f"{key} {count}" for key, count in sorted(labels.keys.items())) + ")"


def is_true(labels: ScriptedLabels, pairs: Sequence[TruePair]) -> bool:
    """Tells whether the verdict agrees with the truth about these pairs."""
    is_allowed = float(np.mean([pair.share for pair in pairs])) >= 0.5 - MARGIN
    return is_allowed if labels.passed else labels.failed and not is_allowed
