"""Samples of a test: `make test-all` has these, `make verify` all the others."""

from collections.abc import Container, Iterable

import pytest
from _pytest.mark import ParameterSet


def later(*values: object) -> ParameterSet:
    """One that `make verify` alone tries."""
    return pytest.param(*values, marks=pytest.mark.verify)


def sampled(every: Iterable[object], sample: Container[object]) -> list[ParameterSet]:
    """Every one as a parameter; `make test-all` has those of the sample."""
    return [pytest.param(one) if one in sample else later(one) for one in every]


def one_in(stride: int, cells: Iterable[tuple[object, ...]]) -> list[ParameterSet]:
    """Every cell as parameters; `make test-all` has one in so many."""
    return [
        later(*cell) if number % stride else pytest.param(*cell)
        for number, cell in enumerate(cells)
    ]
