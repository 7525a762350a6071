"""GateBench with clusters: how often the gate promotes when items of one document, template or
conversation are alike (statistics.md §1.12), by clusters and by items taken as independent.

An item takes its cluster's draw with probability √ICC and a draw of its own otherwise, so that
two items of a cluster correlate by the ICC. Every item has the same distribution, of which the
mean is the null's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate.gate_benchmark import theta0_of, tilt_weights
from benchmarks.gate.gate_rules import ALPHA, MARGIN, judge_rows
from benchmarks.gate.score_matrix import Floats, ModelPair
from harness.gate.offline.design import Design
from harness.gate.suite_plan import Claim

UNEVEN: Final = 0  # in place of a size: clusters of 1 to 30 items
GROUPS: Final = (3, 5, 10, 30, UNEVEN)
CORRELATIONS: Final = (0.0, 0.3, 0.8)
_UNEVEN_SIZES: Final = (1, 1, 1, 2, 3, 5, 10, 30)


@dataclass(frozen=True)
class ClusterRow:
    """Shares promoted in one setting, means over the pairs; `worst` of the worst pair."""

    claim: Claim
    items: int
    group: int  # items of a cluster; UNEVEN for clusters of different sizes
    icc: float
    by_items: float  # by_items, by_clusters: at the null
    by_clusters: float
    worst: float  # of by_clusters


def measure_clusters(
    pairs: Sequence[ModelPair],
    claim: Claim,
    items: int,
    *,
    replications: int,
    seed: int = 11,
    groups: Sequence[int] = GROUPS,
    correlations: Sequence[float] = CORRELATIONS,
) -> Iterator[ClusterRow]:
    for group in groups:
        for icc in correlations:
            key = [seed, items, group, round(icc * 10)]
            null = [
                _promoted(pair, claim, (items, group, icc), replications, [*key, i])
                for i, pair in enumerate(pairs)
            ]
            yield ClusterRow(
                claim=claim,
                items=items,
                group=group,
                icc=icc,
                by_items=float(np.mean([share[0] for share in null])),
                by_clusters=float(np.mean([share[1] for share in null])),
                worst=max(share[1] for share in null),
            )


def cluster_sizes(
    items: int,
    group: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draws sizes that sum to about so many items."""
    if group != UNEVEN:
        return np.full(max(1, round(items / group)), group)
    sizes: list[int] = []
    while sum(sizes) < items:
        sizes.append(int(rng.choice(_UNEVEN_SIZES)))
    return np.array(sizes)


def draw_clustered(
    pair: ModelPair,
    mean: float,
    sizes: NDArray[np.int64],
    icc: float,
    shape: tuple[int, np.random.Generator],
) -> Floats:
    """Draws differences of items, the clusters side by side.

    Args:
        shape: comparisons, generator.
    """
    replications, rng = shape
    weights = tilt_weights(pair.d, mean)
    items = int(sizes.sum())
    own = rng.choice(pair.d, size=(replications, items), p=weights)
    shared = rng.choice(pair.d, size=(replications, len(sizes)), p=weights)
    alike = rng.random((replications, items)) < np.sqrt(icc)
    return np.where(alike, np.repeat(shared, sizes, axis=1), own)


def _promoted(
    pair: ModelPair,
    claim: Claim,
    setting: tuple[int, int, float],
    replications: int,
    key: Sequence[int],
) -> tuple[float, float]:
    """Shares promoted by items and by clusters."""
    items, group, icc = setting
    rng = np.random.default_rng([*key, 0])
    sizes = cluster_sizes(items, group, rng)
    d = draw_clustered(pair, theta0_of(claim), sizes, icc, (replications, rng))
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    means = np.clip(np.add.reduceat(d, begins, axis=1) / sizes, -1.0, 1.0)
    by_clusters = Design(claim, MARGIN, len(sizes), ALPHA, unit="cluster")
    return (
        _share(d, Design(claim, MARGIN, d.shape[1], ALPHA)),
        _share(means, by_clusters),
    )


def _share(d: Floats, design: Design) -> float:
    return float(judge_rows(d, design)[0].mean())
