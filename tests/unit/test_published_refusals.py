"""How far published refusals reach: `tests/world/refusals`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from harness.routing.reliability.slowdown import is_used_up
from router.protocols.provider_failures import refusal_failure

FILE: Final = Path(__file__).parent.parent / "world/refusals/reach.yaml"
REFUSALS: Final[list[Mapping[str, Any]]] = yaml.safe_load(FILE.read_text("utf-8"))["refusals"]


@pytest.mark.req("A5", "B3", "B11")
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal["of"]))
def test_a_published_refusal_reaches_the_requests_that_would_meet_it(
    refusal: Mapping[str, Any],
) -> None:
    headers = refusal.get("headers", {})
    body = json.dumps(refusal["body"]).encode()

    failed = refusal_failure(refusal["status"], body, "application/json", headers)

    found = failed.failure.value, failed.reach.value, is_used_up(failed.headers)
    assert found == (refusal["class"], refusal["reach"], refusal.get("exhausted", False))
