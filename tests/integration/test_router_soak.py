"""The router under mixed faults for a long time (make soak). SOAK_S: seconds, an hour unless
said.
"""

import os
from pathlib import Path

import pytest

from benchmarks.faults import soak

SECONDS = float(os.environ.get("SOAK_S", "3600"))


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.req("A5", "B8", "B9")
def test_under_mixed_faults_nothing_grows_and_nothing_is_lost(tmp_path: Path) -> None:
    run = soak.soak(tmp_path, seconds=SECONDS, rate=20.0)

    assert run.faults() == []
