"""A block with a guardrail that only a newer version knows, in every store."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from harness.domain.canary.guardrails import FailureTally, Guardrail
from harness.domain.canary.observation import NeverSeen
from harness.domain.errors import InputError
from harness.ports import Store
from tests.integration.test_migrations import connected
from tests.support.store.records import BLOCK

pytestmark = pytest.mark.req("F3", "G6")

TALLY = {"units": 10, "canary": 1, "failures": 2, "canary_failures": 1, "tones": {"rude": 2}}
NEWER: dict[str, Any] = {"counts": {"tone": TALLY}, "ranks": {"haste": [0.5]}}
NEVER_SEEN = NeverSeen(
    40,
    1,
    2,
    1,
    {Guardrail.JSON_VALIDITY: FailureTally(20, 1, 1, 1)},
    newer={"counts": {"tone": TALLY}},
)


def test_what_a_newer_router_counted_is_read_beside_the_rest_and_stays_as_it_wrote_it(
    store: Store, database_url: str
) -> None:
    newer = replace(BLOCK, newer=NEWER, never_seen=NEVER_SEEN)
    with store.write() as tx:
        tx.observations.append([newer, replace(BLOCK, sequence=2)], [])

    with store.read() as tx:
        blocks = list(tx.observations.blocks("ro_1"))
    assert blocks == [replace(newer, number=1), replace(BLOCK, sequence=2, number=2)]
    assert [set(block.newer_guardrails) for block in blocks] == [{"tone", "haste"}, set()]
    with connected(database_url) as db:
        query = sa.text("SELECT counts, ranks, levels, never_seen FROM block WHERE number = 1")
        row = {
            name: json.loads(text) for name, text in db.execute(query).one()._mapping.items()
        }
    assert row["counts"].keys() == {"json_validity", "tone"}
    assert row["counts"]["tone"] == row["never_seen"]["counts"]["tone"] == TALLY
    assert row["ranks"] == {"latency": [0.1, 1 / 3], "haste": [0.5]}
    assert row["levels"].keys() == {"latency"}
    assert "newer" not in row["never_seen"]


def test_what_is_no_json_is_refused_with_its_block(store: Store) -> None:
    bad = replace(BLOCK, newer={"ranks": {"haste": [math.inf]}})
    with pytest.raises(InputError, match="contradict"), store.write() as tx:
        tx.observations.append([bad], [])
