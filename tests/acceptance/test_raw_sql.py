"""Whoever may write rows, and no more, promotes nothing: the database itself refuses."""

import pytest

from tests.acceptance.conftest import LATER_ON_POSTGRESQL, Installing
from tests.acceptance.installation import Document, Installation, Refused
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    await_phase,
    before_simulator,
    proposal,
    propose,
)

NEWEST = "SELECT * FROM route_version WHERE route = 'support' ORDER BY version DESC LIMIT 1"

BASELINE = """
INSERT INTO evidence (id, route, target, kind, created_at)
SELECT 'e_forged', route, :candidate, 'baseline', at
FROM route_version WHERE route = 'support' ORDER BY version DESC LIMIT 1"""


@pytest.mark.req("F1", "A7")
@pytest.mark.parametrize("database", LATER_ON_POSTGRESQL, indirect=True)
def test_no_row_promotes_a_model_that_the_gate_has_failed(
    installing: Installing, database: str
) -> None:
    place = installing(
        lambda made: before_simulator(Simulator(made), support={}),
        database=database,
    )
    place.serve("control")
    swap = propose(place, "support", "sim/sim-worse")
    await_phase(place, swap, "rejected")
    failed = proposal(place, swap)
    (judged,) = place.database.rows(
        "SELECT outcome FROM verdict WHERE id = :id", id=failed["verdict"]
    )
    assert judged["outcome"] == "failed"

    before = everything(place)
    for kind in (
        "promotion",
        "canary",
        "restore",
        "settings",
        "weight",
        "baseline",
    ):
        for verdict, outcome in (
            (None, None),
            (failed["verdict"], "failed"),
            (failed["verdict"], "passed"),
            ("v_none", "passed"),
        ):
            refuse_version(place, kind, failed["candidate"], verdict, outcome)
    for statement in (
        "UPDATE verdict SET outcome = 'passed' WHERE id = :verdict",
        "UPDATE verdict SET candidate = incumbent WHERE id = :verdict",
        "DELETE FROM verdict WHERE id = :verdict",
        "UPDATE route_version SET incumbent = :candidate WHERE route = 'support'",
        "UPDATE route_version SET canary = :candidate WHERE route = 'support'",
        "DELETE FROM route_version WHERE route = 'support'",
        "UPDATE evidence SET target = :candidate WHERE route = 'support'",
        "UPDATE target SET model = 'sim-worse'",
        "UPDATE sample SET strict = 1",
        "DELETE FROM sample",
        "UPDATE audit_event SET actor = 'somebody'",
        "DELETE FROM audit_event",
        BASELINE,
    ):
        with pytest.raises(Refused):
            place.database.write(
                statement,
                **used(
                    statement,
                    verdict=failed["verdict"],
                    candidate=failed["candidate"],
                ),
            )
    assert everything(place) == before
    assert place.api("GET", "/audit/verify").json()["whole"] is True
    # The same row with the models of before is taken: what was refused is the candidate.
    write_version(place, next_version(place, "settings"))


def used(statement: str, **values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if f":{name}" in statement}


def refuse_version(
    place: Installation,
    kind: str,
    candidate: str,
    verdict: str | None,
    outcome: str | None,
) -> None:
    """The database refuses a next version of the route with the candidate in a role."""
    row = next_version(place, kind)
    if kind in ("canary", "weight"):
        row |= {
            "canary": candidate,
            "canary_evidence": row["incumbent_evidence"],
        }
        row |= {"weight_bps": 100, "salt": "salt"}
    else:
        row |= {"incumbent": candidate}
    if verdict is not None:
        row |= {"verdict_id": verdict, "verdict_candidate": candidate}
        row |= {"verdict_outcome": outcome}
    with pytest.raises(Refused):
        write_version(place, row)


def next_version(place: Installation, kind: str) -> Document:
    (newest,) = place.database.rows(NEWEST)
    return {name: value for name, value in newest.items() if value is not None} | {
        "version": newest["version"] + 1,
        "revision": newest["revision"] + 1,
        "prev_version": newest["version"],
        "prev_incumbent": newest["incumbent"],
        "kind": kind,
        "actor": "mallory",
    }


def write_version(place: Installation, row: Document) -> None:
    columns = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    place.database.write(f"INSERT INTO route_version ({columns}) VALUES ({values})", **row)  # noqa: S608


def everything(place: Installation) -> dict[str, list[str]]:
    tables = (
        "route_version",
        "verdict",
        "evidence",
        "target",
        "sample",
        "audit_event",
    )
    return {
        table: sorted(repr(sorted(row.items())) for row in place.database.all_rows(table))
        for table in tables
    }
