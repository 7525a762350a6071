import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults import soak
from benchmarks.faults.catalogue import RETRIES, Expect, rows
from benchmarks.faults.client import Ending, Figures, figures
from benchmarks.faults.load import Gateway, played
from benchmarks.faults.stage import Limits, Swapproof, running
from benchmarks.gameday.__main__ import CANNOT

# A busy machine must not look like a provider that hangs.
PATIENT = Limits(first_token_s=8.0, between_chunks_s=8.0, answer_s=10.0)
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapproof]:
    with running(tmp_path_factory.mktemp("faults"), PATIENT) as site:
        yield site


async def all_at_once(site: Swapproof, gateway: Gateway) -> list[Figures]:
    """Every row with either client; rows share nothing but the router."""
    plays = [(row, retries) for row in rows() for retries in RETRIES]
    asked = await asyncio.gather(
        *(
            played(
                r,
                gateway,
                retries=n,
                rate=2,
                seconds=2,
                patience_s=PATIENCE_S,
            )
            for r, n in plays
        )
    )
    calls = site.upstreams.calls()
    return [
        figures(row, retries, outcome, calls)
        for (row, retries), outcome in zip(plays, asked, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.verify
@pytest.mark.req("A4", "A5", "B3", "B8")
def test_whatever_the_first_provider_does_clients_get_what_they_may_expect(
    site: Swapproof,
) -> None:
    found = asyncio.run(all_at_once(site, site.gateway))

    for row in found:
        assert row.right == row.requests, (row.title, row.retries, row.said)
        assert Ending.SPLICED not in row.endings
        assert Ending.FALSE_END not in row.endings
    told = [row for row in found if row.expect is Expect.TOLD]
    assert [row.calls / row.requests for row in told] == [1.0, 1.0]


@pytest.mark.slow
@pytest.mark.req("B9")
@pytest.mark.verify
def test_after_mixed_faults_every_request_is_in_the_database(tmp_path: Path) -> None:
    run = soak.soak(
        tmp_path,
        seconds=4,
        rate=15,
        limits=PATIENT,
    )

    assert run.outcome.sent >= 50
    assert run.miscounted() == []
    assert run.samples[0].tasks >= 1
    assert run.samples[0].rss_mib > 10


ROOT = Path(__file__).parents[2]
SECONDS = 240


@pytest.mark.soak
@pytest.mark.postgres
@pytest.mark.req("A1", "F1", "F2", "F3", "G5", "G6")
@pytest.mark.timeout(0)
def test_on_a_bad_day_only_what_the_docs_predict_fails() -> None:
    done = subprocess.run(  # noqa: S603 - our own script
        [
            sys.executable,
            "-m",
            "benchmarks.gameday",
            "--seconds",
            str(SECONDS),
        ],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stderr)

    assert done.returncode == 0, done.stdout + done.stderr
