"""Lets judges compare the stored pairs of live shadows, and ends a shadow at its verdict.

Pairs are scored in the order in which they began, each caller once in a series of shadows. A
pair that the judge fails on is tried again, and holds up the pairs behind it, so that no score
decides which pairs count. After GIVE_UP_AFTER its score is unknown; so is that of a pair that
is deleted before (`deleted_pairs`). A stop loses at most the
judgements that wait for such a pair; then the judge compares them again. Pairs that a shadow
leaves at its end come first after a restart, so that a person who has read them cannot drop
them.

A shadow whose scores or pairs cannot be read gets no score and no verdict. An alert names it,
and the other shadows continue.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from harness.canary import shadows
from harness.canary.shadow_verdict import RUNNING, design_of, weigh_scores
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alerts import AlertNotice
from harness.frame.errors import StoreUnavailable
from harness.frame.records.transaction import Transaction
from harness.gate.offline.shadow_evidence import UNSCORED
from harness.operations.context import Context
from harness.operations.records import Captures
from harness.routing.capture import CapturedRequest
from harness.routing.records.interventions import Shadows
from harness.routing.records.shadow_scores import ShadowScores
from harness.routing.shadow import JUDGE_USD, Shadow, ShadowTally, ShadowTerms, sum_usage
from harness.routing.shadow_pair import CandidateOutcome
from harness.routing.shadow_score import ScoreReason, ShadowScore, name_caller

log = structlog.get_logger("swapproof.shadows")

EVERY_S: Final = 5.0
BATCH: Final = 8  # pairs that a judge compares at once
# The most pairs that one turn reads; most of them may be of callers that have a score.
_READ: Final = 64
_REST: Final = timedelta(seconds=30)  # after a failure of the judge
GIVE_UP_AFTER: Final = timedelta(hours=1)
# The alerts of shadows whose judge cannot continue: this prefix and the shadow.
JUDGE_OF: Final = "judge of shadow "
_WORKER: Final = "judge"  # in the shadow's tallies, so that routers count the judge's costs
_SILENT: Final = (CandidateOutcome.FAILED, CandidateOutcome.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class PairJudgement:
    """A judge's comparison of a pair. share: the candidate's win share; None if the judge
    failed, with the reason in `failure`. reason: see ScoreReason. cost_usd: None if unknown.
    """

    share: float | None
    reason: ScoreReason = ScoreReason.JUDGED
    calls: int = 0
    cost_usd: float | None = 0.0
    failure: str = ""


class PairJudge(Protocol):
    """Compares pairs as the judge of a suite of traffic does: blind, and in both orders."""

    def compare(
        self, terms: ShadowTerms, pairs: Sequence[CapturedRequest]
    ) -> Sequence[PairJudgement | None]:
        """Compares pairs with both answers, and returns the judgements in their order.

        None stands for a pair that the monthly cap forbids to compare now.
        """
        ...


class ShadowJudging:
    """Judges a batch of each live shadow's pairs in a turn, within the shadow's daily budget.

    Remembers judgements that wait for an earlier pair, and the failures. leads: tells whether
    this process still leads. A process that was stopped in the middle of a turn must not pay
    for pairs that another process compares now.
    """

    def __init__(self, judge: PairJudge, leads: Callable[[], bool] = lambda: True) -> None:
        self._judge = judge
        self._leads = leads
        self._waiting: dict[str, PairJudgement] = {}  # by pair
        self._failing_since: dict[str, datetime] = {}  # by pair
        self._rests_until: dict[str, datetime] = {}  # by shadow
        self._repeated: dict[str, set[str]] = {}  # pairs of callers with a score, by shadow

    def __call__(self, ctx: Context) -> None:
        """Runs one turn, logs the verdicts, and opens or ends the shadows' alerts.

        Raises StoreUnavailable.
        """
        with ctx.store.read() as tx:
            live = [shadow for shadow in Shadows(tx).live() if shadow.terms]
        self._forget(frozenset(shadow.id for shadow in live))
        stopped: dict[str, AlertNotice] = {}
        for shadow in live:
            try:
                line = self._run(ctx, shadow)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - one shadow must not stop the others
                stopped[f"{JUDGE_OF}{shadow.id}"] = describe_stop(shadow, error)
                line = ""
            if line:
                log.info("reconciled", did=line)
        _update_alerts(ctx, stopped)

    def _forget(self, live: frozenset[str]) -> None:
        for shadow in set(self._repeated) - live:
            del self._repeated[shadow]
        if not live:
            self._waiting.clear()
            self._failing_since.clear()
            self._rests_until.clear()

    def _run(self, ctx: Context, shadow: Shadow) -> str:
        """Judges a batch of a shadow's pairs. Returns a log line at its verdict, else empty."""
        terms = shadow.terms
        now = ctx.clock.now()
        with ctx.store.read() as tx:
            if terms is None or shadows.find_end_reason(ctx, tx, shadow):
                return ""
            scores = ShadowScores(tx).of_series(terms.series)
            pairs = self._list_new_pairs(tx, shadow, terms, scores)
            usage = sum_usage(Shadows(tx).tallies([shadow.id], since=now.date()), now.date())
        if weigh_scores(terms, scores).outcome == RUNNING:
            if not pairs:
                return ""
            most_usd = shadow.limits.usd_per_day
            if most_usd is None or usage.cost_usd < most_usd:
                self._ask(ctx, shadow, terms, pairs)
            self._store(ctx, shadow, terms, pairs, len(scores))
        with ctx.store.write() as tx:
            tx.serialize()  # so that only one process finds the shadow live, and ends it
            return shadows.end_decided(tx, shadow) if _is_live(tx, shadow) else ""

    def _list_new_pairs(
        self,
        tx: Transaction,
        shadow: Shadow,
        terms: ShadowTerms,
        scores: Sequence[ShadowScore],
    ) -> list[CapturedRequest]:
        """Lists the next pairs whose callers have no score in the series yet."""
        repeated = self._repeated.setdefault(shadow.id, set())
        callers = {score.caller for score in scores}
        judged = {score.pair for score in scores} | repeated
        series = Shadows(tx).of_series(shadow.route, terms.series)
        found: list[CapturedRequest] = []
        for pair in Captures(tx).pairs(series, judged=judged, limit=_READ):
            caller = _name_caller_of(terms, pair)
            if caller in callers:
                repeated.add(pair.id)
            elif len(found) < BATCH:
                callers.add(caller)
                found.append(pair)
        return found

    def _ask(
        self, ctx: Context, shadow: Shadow, terms: ShadowTerms, pairs: Sequence[CapturedRequest]
    ) -> None:
        """Asks the judge about the pairs that need it, and stores the costs."""
        now = ctx.clock.now()
        open_ = [
            pair
            for pair in pairs
            if pair.id not in self._waiting and settle_pair(shadow, terms, pair) is None
        ]
        if not open_ or now < self._rests_until.get(shadow.id, now) or not self._leads():
            return
        judgements = self._judge.compare(terms, open_)
        for pair, judgement in zip(open_, judgements, strict=True):
            if judgement is None or judgement.share is None:
                self._rests_until[shadow.id] = now + _REST
            if judgement is None:
                continue
            if judgement.share is None:
                since = self._failing_since.setdefault(pair.id, now)
                if now - since < GIVE_UP_AFTER:
                    continue
            self._failing_since.pop(pair.id, None)
            self._waiting[pair.id] = judgement
        usd = sum(given.cost_usd or 0.0 for given in judgements if given)
        if usd:
            tally = ShadowTally(shadow.id, now.date(), _WORKER, {}, {JUDGE_USD: usd})
            with ctx.store.write() as tx:
                Shadows(tx).append([tally])

    def _store(
        self,
        ctx: Context,
        shadow: Shadow,
        terms: ShadowTerms,
        pairs: Sequence[CapturedRequest],
        stored: int,
    ) -> None:
        """Stores the scores up to the first pair without a judgement; none if the shadow has
        ended, or its series has further scores, meanwhile.

        Args:
            stored: the scores that this turn has read.
        """
        judged = []
        for pair in pairs:
            judgement = settle_pair(shadow, terms, pair) or self._waiting.get(pair.id)
            if judgement is None:
                break
            judged.append((pair, judgement))
        with ctx.store.write() as tx:
            # A deletion of a pair, or a process that led meanwhile, may have added scores. Then
            # the next turn numbers these anew.
            tx.serialize()
            scores = ShadowScores(tx).of_series(terms.series)
            if not _is_live(tx, shadow) or len(scores) != stored:
                return
            for number, (pair, judgement) in enumerate(judged, start=stored + 1):
                score = _build_score(terms, number, pair, judgement, ctx.clock.now())
                ShadowScores(tx).add(score)
        for pair, _ in judged:
            self._waiting.pop(pair.id, None)


def describe_stop(shadow: Shadow, error: Exception) -> AlertNotice:
    """Describes why a shadow's judge cannot continue, and what a person can do."""
    candidate = shadow.candidate.name
    return AlertNotice(
        subject=f"route {shadow.route}",
        title=f"the judge of the shadow of {candidate} on route {shadow.route} has stopped",
        text=(
            f"{type(error).__name__}: {error}. Until this is repaired, shadow {shadow.id} gets "
            "no score and no verdict; other shadows continue. Next: `swapproof db check` names "
            "changed rows, which a backup restores; "
            f"`swapproof shadow stop {shadow.route}` ends the shadow."
        ),
    )


def _update_alerts(ctx: Context, stopped: Mapping[str, AlertNotice]) -> None:
    """Opens the alerts of stopped shadows, and ends the alerts of the others."""
    open_ = {
        cause
        for _, cause in alerts.list_open(ctx, AlertKind.JOB_FAILED)
        if cause.startswith(JUDGE_OF)
    }
    for cause in sorted(open_ | stopped.keys()):
        alerts.update_alert(ctx, AlertKind.JOB_FAILED, cause, stopped.get(cause))


def _is_live(tx: Transaction, shadow: Shadow) -> bool:
    return any(live.id == shadow.id for live in Shadows(tx).live())


def _build_score(
    terms: ShadowTerms,
    number: int,
    pair: CapturedRequest,
    judgement: PairJudgement,
    now: datetime,
) -> ShadowScore:
    share = judgement.share
    low, high = UNSCORED if share is None else (share, share)
    return ShadowScore(
        series=terms.series,
        number=number,
        shadow=pair.shadow or terms.series,
        pair=pair.id,
        caller=_name_caller_of(terms, pair),
        reason=ScoreReason.NOT_JUDGED if share is None else judgement.reason,
        low=low,
        high=high,
        calls=judgement.calls,
        cost_usd=judgement.cost_usd,
        at=now,
    )


def _name_caller_of(terms: ShadowTerms, pair: CapturedRequest) -> str:
    return name_caller(terms.series, pair.caller, pair.conversation, pair.id)


def settle_pair(
    shadow: Shadow, terms: ShadowTerms, pair: CapturedRequest
) -> PairJudgement | None:
    """Returns the score of a pair that needs no judge; None if it needs one.

    A pair that shows nothing counts as the null hypothesis: the incumbent gave no answer, or
    the pair lacks a part of the request. A candidate without an answer loses. A judge may not
    see a pair of another data class, which a shadow before this one has stored.
    """
    if pair.data_class != shadow.data_class:
        return PairJudgement(None, ScoreReason.NOT_JUDGED)
    outcome = pair.candidate.outcome if pair.candidate else CandidateOutcome.LOST
    null = design_of(terms).theta0
    if outcome not in (*_SILENT, CandidateOutcome.ANSWERED):
        return PairJudgement(None, ScoreReason.NOT_JUDGED)
    if not pair.content.get("answer"):
        return PairJudgement(null, ScoreReason.INCUMBENT_SILENT)
    if outcome in _SILENT:
        return PairJudgement(0.0, ScoreReason.CANDIDATE_SILENT)
    return None
