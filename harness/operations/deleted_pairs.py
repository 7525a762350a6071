"""Counts shadow pairs that are deleted before a judge has compared them (statistics.md §2.9).

Retention deletes a pair, or a person does, perhaps after reading it. If the pair then counted
as nothing, the deletion would choose which pairs count. So its score is unknown: 0 for PASSED
and 1 for FAILED. It is stored in the transaction of the deletion, and has no content.
"""

from collections.abc import Iterable, Sequence

from harness.canary.shadow_verdict import RUNNING, weigh_scores
from harness.frame.errors import SignatureInvalid
from harness.frame.records.transaction import Transaction
from harness.gate.offline.shadow_evidence import UNSCORED
from harness.operations.records import DeletedCapture
from harness.routing.records.interventions import Shadows
from harness.routing.records.shadow_scores import ShadowScores
from harness.routing.shadow import ShadowTerms
from harness.routing.shadow_score import ScoreReason, ShadowScore, name_caller


def count_deleted(tx: Transaction, deleted: Iterable[DeletedCapture]) -> int:
    """Stores unknown scores for deleted pairs without a score, one for each caller of a series
    without a verdict. Returns their number.

    Args:
        deleted: may contain sampled requests.
    """
    pairs = sorted(
        (pair for pair in deleted if pair.shadow), key=lambda pair: (pair.at, pair.id)
    )
    if not pairs:
        return 0
    tx.serialize()  # before the series are read, because a judge adds scores to them
    shadows = sorted({pair.shadow for pair in pairs if pair.shadow})
    terms_of = {shadow: _find_terms(tx, shadow) for shadow in shadows}
    by_series: dict[str, tuple[ShadowTerms, list[DeletedCapture]]] = {}
    for pair in pairs:
        if (terms := terms_of[pair.shadow or ""]) is not None:
            by_series.setdefault(terms.series, (terms, []))[1].append(pair)
    return sum(
        _count_in_series(tx, terms, series_pairs) for terms, series_pairs in by_series.values()
    )


def _find_terms(tx: Transaction, shadow: str) -> ShadowTerms | None:
    """Returns a shadow's terms. None without a judge, and for a forged shadow, which gives no
    verdict and must not stop a deletion.
    """
    try:
        return Shadows(tx).get(shadow).terms
    except SignatureInvalid:
        return None


def _count_in_series(
    tx: Transaction, terms: ShadowTerms, pairs: Sequence[DeletedCapture]
) -> int:
    try:
        scores = ShadowScores(tx).of_series(terms.series)
    except SignatureInvalid:
        return 0  # such a series gives no verdict, and must not stop a deletion
    if weigh_scores(terms, scores).outcome != RUNNING:
        return 0
    callers = {score.caller for score in scores}
    judged = {score.pair for score in scores}
    low, high = UNSCORED
    number = len(scores)
    for pair in pairs:
        caller = name_caller(terms.series, pair.caller, pair.conversation, pair.id)
        if pair.id in judged or caller in callers:
            continue
        callers.add(caller)
        number += 1
        score = ShadowScore(
            series=terms.series,
            number=number,
            shadow=pair.shadow or terms.series,
            pair=pair.id,
            caller=caller,
            reason=ScoreReason.DELETED,
            low=low,
            high=high,
            calls=0,
            cost_usd=0.0,
            at=tx.now(),
        )
        ShadowScores(tx).add(score)
    return number - len(scores)
