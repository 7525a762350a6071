"""The benchmark's own arithmetic: what wrk said, medians, ratios, whether to trust them."""

from dataclasses import replace

import pytest

from benchmarks.router import table
from benchmarks.router.load import Throttle, read_wrk
from benchmarks.router.measure import Figures

WRK = """Running 5s test @ http://127.0.0.1:1/v1
  1 threads and 32 connections
  116043 requests in 5.10s, 83.67MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:  22753.01
"""
QUIET = Figures(
    per_s=1000,
    cpu_us=10,
    cpu_us_apart=20,
    p50_ms=2,
    p99_ms=4,
    streams_per_s=60,
    chunks_per_s=6000,
    cpu_us_per_chunk=5,
    first_ms=3,
    staggered_ms=1,
    rss_mib=10,
    errors=0,
    others=0.01,
    steal=0,
)
DIRECT = replace(QUIET, p50_ms=1)


def test_every_error_that_wrk_tells_is_counted() -> None:
    assert read_wrk(WRK) == Throttle(116043, 22753.01, 11)
    with pytest.raises(ValueError, match="something else"):
        read_wrk("unable to connect")


def test_ratios_are_of_one_round_and_the_median_of_all() -> None:
    rounds = {
        "direct": {1: DIRECT, 2: DIRECT, 3: DIRECT},
        "nginx": {1: QUIET, 2: replace(QUIET, per_s=100), 3: QUIET},
        "own": {
            1: replace(QUIET, per_s=250, p50_ms=3),
            2: replace(QUIET, per_s=25, p50_ms=3),
            3: replace(QUIET, per_s=900, p50_ms=3),
        },
    }
    by_title = {column[0]: column for column in table.COLUMNS}

    assert table.ratio(rounds, "own", by_title["req/s"]) == 0.25
    assert table.ratio(rounds, "own", by_title["+p50 ms"]) == 2.0


@pytest.mark.parametrize(("others", "steal"), [(0.3, 0.0), (0.0, 0.3)])
def test_a_busy_machine_is_told(others: float, steal: float) -> None:
    quiet = {"direct": {1: DIRECT}, "nginx": {1: QUIET}}
    busy = {**quiet, "nginx": {1: replace(QUIET, others=others, steal=steal)}}

    assert not any("TOO BUSY" in line for line in table.lines(quiet))
    assert any("TOO BUSY" in line for line in table.lines(busy))


def test_what_was_not_measured_is_a_dash() -> None:
    rounds = {"direct": {1: replace(DIRECT, rss_mib=float("nan"))}}

    assert "nan" not in "\n".join(table.lines(rounds))
