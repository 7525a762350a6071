import math
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router.request.caller_patience import PATIENCE_HEADERS, answer_by, read_patience_s

pytestmark = pytest.mark.req("A5", "B3")

FILE: Final = Path(__file__).parent.parent / "world/patience/headers.yaml"
EXAMPLES: Final[list[dict[str, Any]]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_published_headers_are_read_with_their_own_unit(example: dict[str, Any]) -> None:
    headers = [(name.encode(), value.encode()) for name, value in example["headers"].items()]
    right_s = example["right_s"]

    assert read_patience_s(headers) == (math.inf if right_s is None else right_s)


def test_each_header_has_an_example() -> None:
    named = {name.encode() for example in EXAMPLES for name in example["headers"]}

    assert named >= PATIENCE_HEADERS.keys()


@given(st.sampled_from(sorted(PATIENCE_HEADERS)), st.binary(max_size=40))
def test_a_value_that_is_no_time_has_no_effect(name: bytes, value: bytes) -> None:
    assert read_patience_s([(name, value)]) > 0


@given(st.floats(0.01, 1e9))
def test_an_answer_is_due_before_the_client_gives_up(patience_s: float) -> None:
    assert 0.9 * patience_s - 1e-6 <= answer_by(0.0, patience_s) < patience_s
