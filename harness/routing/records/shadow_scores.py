"""Records of the scores of shadows' pairs. Append-only and signed.

The table refuses a second score of a caller in a series, and a second score of a pair.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.errors import SignatureInvalid
from harness.frame.records.columns import amount, at_least, one_of
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.frame.records.transaction import Transaction
from harness.routing.records.interventions import Shadows, shadow
from harness.routing.shadow_score import ScoreReason, ShadowScore

SHADOW_SCORE: Final = record(
    ShadowScore,
    "shadow_score",
    at_least("number", 1),
    at_least("calls", 0),
    amount("cost_usd"),
    one_of("reason", ScoreReason),
    sa.CheckConstraint("low >= 0 AND low <= high AND high <= 1", name="bounds_of_share"),
    sa.UniqueConstraint("series", "caller"),
    sa.UniqueConstraint("shadow", "pair"),
    key="series number",
    refers={"series": shadow, "shadow": shadow},
    signed=True,
)
shadow_score: Final = SHADOW_SCORE.table


class ShadowScores(Records[ShadowScore]):
    record = SHADOW_SCORE
    order = (shadow_score.c.series, shadow_score.c.number)

    def of_series(self, series: str) -> Sequence[ShadowScore]:
        """Returns the scores of a series in their order. Raises SignatureInvalid, also if one
        is missing.
        """
        scores = self._all(self._select(shadow_score.c.series == series))
        for number, score in enumerate(scores, start=1):
            if score.number != number:
                raise SignatureInvalid(
                    f"score {number} of the series of shadow {series} is missing, so the "
                    "database was changed by other means than Swapproof"
                )
        return scores


def list_shadow_looks(
    tx: Transaction,
    route: str,
    candidates: Collection[str],
    before: datetime | None = None,
) -> list[int]:
    """Lists the numbers of the looks that shadows of a route took at these candidates.

    A series of shadows is one look from its start. If it counted from its first score, several
    series could wait without a score, each with the whole alpha.

    Args:
        before: later shadows do not count.
    """
    looks: dict[str, int] = {}
    for judged in Shadows(tx).judged(route):
        is_later = before is not None and judged.started_at >= before
        if judged.terms is not None and judged.candidate.id in candidates and not is_later:
            looks[judged.terms.series] = judged.terms.look
    return list(looks.values())
