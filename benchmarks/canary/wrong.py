"""How a candidate goes wrong after a while, and what that did to whom."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from benchmarks.canary.load import Load
from benchmarks.canary.place import LATENCY, Place
from benchmarks.canary.sent_requests import Harm, Kind, SentRequest
from benchmarks.canary.wall_time import TooLate, now_s, until

# An answer that takes so much longer than the incumbent's median harms its user.
SLOW: Final = 1.5
# What was under way when the weight fell ends, and workers hear of the new revision.
AFTER_S: Final = 5.0


def _slower(place: Place, model: str) -> None:
    latency = {
        "first_token_median_ms": 2 * LATENCY["first_token_median_ms"],
        "tokens_per_s": LATENCY["tokens_per_s"] / 2,
    }
    place.change(model, {"latency": latency})


class Case(NamedTuple):
    """model: the candidate's. words: what is wrong with it from then on."""

    model: str
    words: str
    break_: Callable[[Place, str], None]


def _fault(**fault: object) -> Callable[[Place, str], None]:
    return lambda place, model: place.break_(model, fault)


CASES: Final[Mapping[str, Case]] = {
    "a": Case("fails", "20 % of its answers are none", _fault(kind="garbage", rate=0.2)),
    "a500": Case(
        "fails-500",
        "20 % of its calls end in 500, asked again",
        _fault(kind="status", rate=0.2),
    ),
    "b": Case("slow", "2 × slower", _slower),
    "c": Case("breaks-json", "all its JSON is broken", _fault(kind="broken_json")),
    "d": Case(
        "cuts-streams",
        "cuts all its streams",
        _fault(kind="close", after_chunks=3, streams_only=True),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Of one run. Times count from the break, in seconds, None for what did not happen.

    per_s: requests that were really sent. exposures: canary requests after the break; before:
    up to it. harmed: users of these, by what they got; slow_share: of the incumbent's own users
    with an answer as slow. others_harmed: users of the incumbent with anything else wrong.
    """

    name: str
    words: str
    per_s: float
    before: int
    weight_0_s: float | None
    last_canary_s: float | None
    exposures: int
    harmed: Mapping[str, int]
    slow_share: float
    others_harmed: int
    by: str
    because: str


def run(name: str, place: Place, load: Load, *, healthy_s: float, limit_s: float) -> Outcome:
    case = CASES[name]
    place.open([name])
    began = now_s()
    load.route = name
    time.sleep(healthy_s)
    case.break_(place, case.model)
    broke = now_s()
    try:
        weight_0 = until(lambda: place.weight_bps(name) == 0, limit_s)
    except TooLate:
        weight_0 = None
    else:
        time.sleep(AFTER_S)
    load.route = ""
    time.sleep(1.0)
    rollout = place.rollout(name)
    all_ = load.since(began, name)
    return _outcome(name, case, all_, broke, weight_0, rollout.ended_because)


def _outcome(
    name: str,
    case: Case,
    all_: Sequence[SentRequest],
    broke: float,
    weight_0: float | None,
    because: str,
) -> Outcome:
    canary = [request for request in all_ if request.canary]
    exposed = [request for request in canary if request.sent_s >= broke]
    others = [request for request in all_ if not request.canary]
    slow = slow_s(others)
    harmed = Counter(harm_of(request, slow) for request in exposed)
    harmed.pop("", None)
    seconds = max(request.sent_s for request in all_) - min(request.sent_s for request in all_)
    return Outcome(
        name=name,
        words=case.words,
        per_s=len(all_) / seconds,
        before=len(canary) - len(exposed),
        weight_0_s=weight_0 - broke if weight_0 else None,
        last_canary_s=max((request.sent_s for request in exposed), default=broke) - broke,
        exposures=len(exposed),
        harmed=dict(harmed),
        slow_share=sum(harm_of(request, slow) == "slow" for request in others) / len(others),
        others_harmed=sum(request.harm is not None for request in others),
        by=by_whom(because),
        because=because,
    )


def slow_s(control: Sequence[SentRequest]) -> Mapping[Kind, float]:
    """From when on an answer is slow: streams and whole answers have medians of their own."""
    return {
        kind: SLOW
        * statistics.median(request.seconds for request in control if request.kind is kind)
        for kind in {request.kind for request in control}
    }


def harm_of(asked: SentRequest, slow: Mapping[Kind, float]) -> str:
    """Empty for none; what is worst comes first."""
    if asked.harm is not None:
        return asked.harm.value
    return "slow" if asked.seconds > slow[asked.kind] else ""


def by_whom(because: str) -> str:
    if not because:
        return "nobody"
    return "a worker's guard" if because.startswith("A router's own guard") else "control loop"


HARMS: Final = (Harm.ERROR.value, Harm.CUT.value, Harm.JSON.value, "slow")
