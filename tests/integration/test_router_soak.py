"""The router for a long time: mixed faults, no database, no control plane (make soak).

SOAK_S: seconds of mixed faults, an hour unless said; the database is away for as long, and the
control plane for a twelfth of it.
"""

import os
from pathlib import Path

import pytest

from benchmarks.faults import outage, soak

SECONDS = float(os.environ.get("SOAK_S", "3600"))
RATE = 20.0

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


@pytest.mark.req("A5", "B8", "B9")
def test_under_mixed_faults_nothing_grows_and_nothing_is_lost(tmp_path: Path) -> None:
    run = soak.soak(tmp_path, seconds=SECONDS, rate=RATE)

    assert run.faults() == []


@pytest.mark.postgres
@pytest.mark.req("A1", "G5")
def test_without_its_database_nothing_fails_and_all_of_it_is_recorded_later(
    tmp_path: Path,
) -> None:
    away = outage.database(tmp_path, rate=RATE, seconds=SECONDS)

    assert away.faults() == []


@pytest.mark.req("A1", "G5")
def test_without_the_control_plane_nothing_fails_and_all_of_it_is_recorded(
    tmp_path: Path,
) -> None:
    away = outage.control(tmp_path, rate=RATE, seconds=SECONDS / 12)

    assert away.faults() == []
