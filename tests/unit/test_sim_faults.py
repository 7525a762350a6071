"""Fault switches: what they may say, and which requests they hit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.sim import faults
from evals.sim.faults import Fault, FaultBook, FaultKind
from harness.domain.errors import InputError

rates = st.integers(0, 1000).map(lambda n: n / 1000)


@given(rate=rates, n=st.integers(1, 1200))
def test_the_share_that_is_hit_is_exact_to_one_request(rate: float, n: int) -> None:
    book = FaultBook()
    book.set("m", Fault(FaultKind.STATUS, rate=rate))

    assert abs(sum(bool(book.draw("m")) for _ in range(n)) - rate * n) < 1 + 1e-6


def test_a_fault_has_the_defaults_of_its_kind() -> None:
    assert faults.parse_fault({"kind": "status"}).status == 500
    assert faults.parse_fault({"kind": "html"}).status == 200
    assert faults.parse_fault({"kind": "stall"}).after_chunks == 1
    assert faults.parse_fault({"kind": "reset"}).after_chunks == 0
    assert faults.parse_fault({"kind": "hang"}).delay_s is None
    assert faults.parse_fault({"kind": "garbage"}).variant == "text"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "must be a JSON object"),
        ({}, "kind: Field required"),
        ({"kind": "explode"}, "kind: Input should be"),
        ({"kind": "status", "rat": 1}, "rat: Unexpected"),
        ({"kind": "status", "rate": 1.5}, "rate: Input should be"),
        ({"kind": "status", "status": 99}, "status: Input should be"),
        ({"kind": "hang", "delay_s": -1}, "delay_s: Input should be"),
        ({"kind": "stall", "after_chunks": "few"}, "after_chunks: Input should be"),
        ({"kind": "garbage", "variant": "odd"}, "variant: Input should be 'text', 'nan'"),
        ({"kind": "status", "headers": {"a b": "c"}}, "headers"),
        ({"kind": "status", "headers": {"a": "c\nd: e"}}, "headers"),
    ],
)
def test_a_switch_that_makes_no_sense_is_refused_by_field(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        faults.parse_fault(data)
