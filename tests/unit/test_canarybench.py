import numpy as np
import pytest

from harness.gate.online.guardrails import rank_among
from tests.support.canary.guarded_traffic import ranks_of_rows

pytestmark = pytest.mark.req("F3")


def test_ranks_of_many_rows_are_the_products_own_ranks() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 30, (200, 20)).astype(float)
    ties = rng.random(200)
    among = rng.random((200, 19)) < 0.7
    floats = ranks_of_rows(values[:, 0], values[:, 1:], ties, among)

    for n in range(200):
        controls = values[n, 1:][among[n]].tolist()
        assert floats[n] == rank_among(float(values[n, 0]), controls, float(ties[n]))
