"""The audit log is a chain: what somebody changes, removes or adds shows."""

import pytest

from tests.acceptance.conftest import LATER_ON_POSTGRESQL, Installing
from tests.acceptance.installation import Document, Installation
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import before_simulator


@pytest.mark.req("F5")
@pytest.mark.parametrize("database", LATER_ON_POSTGRESQL, indirect=True)
def test_a_changed_removed_or_inserted_event_shows_and_so_does_a_cut_tail(
    installing: Installing, database: str
) -> None:
    place = installing(
        lambda made: before_simulator(Simulator(made), support={}),
        database=database,
    )
    place.serve("control")
    for number in range(4):
        said = {"name": f"key {number}", "role": "viewer"}
        place.api("POST", "/keys", said).raise_for_status()
    assert whole(place)
    events = place.database.rows("SELECT number FROM audit_event ORDER BY number")
    middle = events[len(events) // 2]["number"]
    last = events[-1]["number"]

    db = place.database
    for changes in (
        {"actor": "mallory"},
        {"details": "{}"},
        {"at": 1},
        {"action": "key.revoke"},
    ):
        with db.changed("audit_event", f"number = {middle}", **changes):
            assert not whole(place), changes
        assert whole(place)
    with db.removed("audit_event", f"number = {middle}"):
        assert not whole(place)
        place.cli("audit", "verify", code=1)
    assert whole(place)
    (row,) = db.rows(f"SELECT * FROM audit_event WHERE number = {middle}")  # noqa: S608
    assert db.insert("audit_event", row | {"number": last + 1}) == 1
    assert not whole(place)
    assert db.overpower("DELETE FROM audit_event WHERE number = :n", n=last + 1) == 1
    assert whole(place)

    # A cut tail leaves a chain that holds; the head that was printed before is not in it.
    head = printed_head(place)
    with db.removed("audit_event", f"number = {last}"):
        assert printed_head(place) != head
        assert head not in printed(place)
    assert head in printed(place)
    assert whole(place)


def whole(place: Installation) -> bool:
    return bool(place.api("GET", "/audit/verify").json()["whole"])


def printed(place: Installation) -> list[tuple[int, str]]:
    found: list[Document] = place.api("GET", "/audit?limit=1000").json()["items"]
    return sorted((event["number"], event["mac"]) for event in found)


def printed_head(place: Installation) -> tuple[int, str]:
    return printed(place)[-1]
