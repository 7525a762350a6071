"""Judges a game day: compares failed requests with the docs' predictions, and stored requests
with the client's; checks samples, swaps and leaders.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.gameday.acts import Act, Break
from benchmarks.gameday.town import WANTED, Swaps
from benchmarks.gameday.traffic import Request

# A killed router loses the rows of this time: `router.flush_interval_s` and the write itself.
UNWRITTEN_S: Final = 2.0
BROKE_OFF: Final = "the provider's stream broke off"
# The planned and the stored samples of each run that is done.
SAMPLES: Final = """\
SELECT wanted * epochs, (SELECT count(*) FROM sample WHERE run = eval_run.id)
FROM eval_run WHERE state = 'done'"""
RECORDED: Final = "SELECT route, sum(requests)::int FROM traffic GROUP BY route"


@dataclass(frozen=True)
class Check:
    what: str
    seen: str
    good: bool


@dataclass(frozen=True)
class Played:
    """The result of an act. during: requests under way or sent between break and recovery.
    failed: all failed requests, except those that another act predicts.
    """

    act: Act
    break_: Break
    during: int
    failed: int
    predicted: int


def predicted(
    act: Act,
    break_: Break,
    request: Request,
) -> bool:
    """Returns whether the docs predict this failure: the request was under way at the break.
    The error shows whether a stream had started.
    """
    under_way = request.start_s <= break_.broken_s and request.end_s >= break_.begun_s
    begun = request.stream and BROKE_OFF in request.error
    return under_way and (act.in_flight_fails or (act.streams_break_off and begun))


def judge_act(
    act: Act,
    break_: Break,
    requests: Sequence[Request],
    breaks: Sequence[tuple[Act, Break]],
) -> Played:
    """Counts an act's requests, its failures, and its predicted failures."""
    during = [r for r in requests if r.end_s >= break_.begun_s and r.start_s <= break_.over_s]
    others = [one for one in breaks if one != (act, break_)]
    mine = [r for r in during if r.failed and predicted(act, break_, r)]
    nobodys = [r for r in unpredicted(during, others) if r not in mine]
    return Played(act, break_, len(during), len(mine) + len(nobodys), len(mine))


def unpredicted(
    requests: Sequence[Request], breaks: Sequence[tuple[Act, Break]]
) -> list[Request]:
    return [
        request
        for request in requests
        if request.failed and not any(predicted(act, break_, request) for act, break_ in breaks)
    ]


def check_requests(requests: Sequence[Request], breaks: Sequence[tuple[Act, Break]]) -> Check:
    wrong = unpredicted(requests, breaks)
    causes = Counter(request.error[:120] for request in wrong)
    said = "; ".join(f"{count} × {cause}" for cause, count in causes.most_common(5))
    failed = sum(request.failed for request in requests)
    seen = f"{len(requests):,} sent, {failed} failed, {len(wrong)} of them not predicted"
    return Check(
        "requests that fail are predicted",
        f"{seen} {said}".strip(),
        not wrong,
    )


def check_books(
    requests: Sequence[Request],
    recorded: Mapping[str, int],
    breaks: Sequence[tuple[Act, Break]],
) -> Check:
    """Checks that each answer is recorded once. A killed router may lose its last answers, and
    may or may not have recorded a failed request.
    """
    open_ = {
        request.number
        for request in requests
        for act, break_ in breaks
        if act.in_flight_fails
        and request.start_s <= break_.broken_s
        and request.end_s >= break_.begun_s - UNWRITTEN_S
    }
    sure = sum(not request.failed and request.number not in open_ for request in requests)
    total = sum(recorded.values())
    most = sure + len(open_ | {request.number for request in requests if request.failed})
    answered = sum(not request.failed for request in requests)
    seen = f"{answered:,} answered, {total:,} recorded ({sure:,} to {most:,} predicted)"
    return Check("every answer is recorded once", seen, sure <= total <= most)


def check_samples(runs: Sequence[tuple[int, int]]) -> Check:
    """Checks that finished runs are complete.

    Args:
        runs: planned and stored samples of each run.
    """
    wrong = sum(planned != stored for planned, stored in runs)
    seen = (
        f"{sum(stored for _, stored in runs):,} samples of {len(runs)} runs, {wrong} incomplete"
    )
    return Check("a run that is done has every sample", seen, bool(runs) and not wrong)


def check_swaps(swaps: Swaps) -> list[Check]:
    return [
        Check(
            f"`{candidate}` ends {wanted.replace('_', ' ')}",
            " → ".join(swaps.phases.get(candidate, {})) or "never proposed",
            swaps.phase(candidate) == wanted,
        )
        for candidate, wanted in WANTED.items()
    ]


def check_leaders(swaps: Swaps, changes: int) -> Check:
    good = not swaps.faults and len(swaps.leaders) > changes
    seen = f"leaders {', '.join(swaps.leaders)}; {'; '.join(swaps.faults) or 'no fault'}"
    return Check("one control plane leads at a time", seen, good)
