"""Python source is parsed in several threads at once, whatever the garbage collector does."""

import gc
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import getsource

import pytest

from evals import scorers
from evals.scorers import find_scorer, scorer_identity
from evals.scorers.code import imports
from evals.scorers.python_source import parse_literal, parse_source

SOURCE = getsource(scorers)
NUMBERS = list(range(2000))


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads change places whenever they can, also while the collector runs."""

    def collected(phase: str, info: dict[str, int]) -> None:
        for _ in (phase, info) * 20:
            pass

    interval, (most, *others) = sys.getswitchinterval(), gc.get_threshold()
    gc.callbacks.append(collected)
    sys.setswitchinterval(1e-6)
    gc.set_threshold(50, *others)
    yield
    gc.set_threshold(most, *others)
    sys.setswitchinterval(interval)
    gc.callbacks.remove(collected)


def in_threads(do: Callable[[], object]) -> list[object]:
    with ThreadPoolExecutor(4) as pool:
        return [future.result() for future in [pool.submit(do) for _ in range(60)]]


def test_trees_and_literals_are_built_one_at_a_time() -> None:
    assert all(in_threads(lambda: parse_source(SOURCE).body))
    assert in_threads(lambda: parse_literal(str(NUMBERS))) == [NUMBERS] * 60


def test_code_and_scorers_are_looked_at_in_threads() -> None:
    assert in_threads(lambda: imports(SOURCE)) == [f"{SOURCE}\n"] * 60
    known = scorer_identity(find_scorer("code"), {})
    assert in_threads(lambda: scorer_identity(find_scorer("code"), {})) == [known] * 60
