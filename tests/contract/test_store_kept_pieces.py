from dataclasses import replace
from datetime import timedelta

import pytest

from harness.app.store.store import Store
from harness.routing.kept_responses import KeptPiece
from harness.routing.records.kept_pieces import KeptPieces
from tests.support.store.records import NOW

pytestmark = [pytest.mark.req("G4"), pytest.mark.both_databases]

ANNS = KeptPiece(
    "ann's",
    "resp_1",
    NOW,
    NOW + timedelta(hours=24),
    "chat",
    "personal",
    "hash-of-ann",
    17,
    {"history": ["piece:1"]},
)


def test_a_caller_finds_its_own_pieces_alone(store: Store) -> None:
    bens = replace(ANNS, caller="ben's", content={"history": []})
    with store.write() as tx:
        KeptPieces(tx).store([ANNS, bens])

    with store.read() as tx:
        pieces = KeptPieces(tx)
        assert pieces.find("ann's", ["resp_1", "resp_2"], NOW) == {"resp_1": ANNS.content}
        assert pieces.find("ben's", ["resp_1"], NOW) == {"resp_1": bens.content}
        assert pieces.find("eve's", ["resp_1"], NOW) == {}
        assert pieces.sizes("ann's", ["resp_1", "resp_1"]) == {"resp_1": 17}
        assert pieces.total_bytes() == 34


def test_an_expired_piece_is_found_no_more_and_then_deleted(store: Store) -> None:
    with store.write() as tx:
        KeptPieces(tx).store([ANNS])

    with store.write() as tx:
        pieces = KeptPieces(tx)
        assert pieces.find("ann's", ["resp_1"], ANNS.expires_at) == {}
        assert pieces.forget(ANNS.expires_at - timedelta(seconds=1)) == 0
        assert pieces.forget(ANNS.expires_at) == 1
        assert pieces.total_bytes() == 0


def test_a_later_answer_keeps_earlier_pieces_for_longer(store: Store) -> None:
    later = ANNS.expires_at + timedelta(hours=1)
    with store.write() as tx:
        KeptPieces(tx).store([ANNS, replace(ANNS, caller="ben's")])
        assert KeptPieces(tx).prolong("ann's", ["resp_1", "resp_2"], later) == 1

    with store.read() as tx:
        at = ANNS.expires_at
        assert "resp_1" in KeptPieces(tx).find("ann's", ["resp_1"], at)
        assert KeptPieces(tx).find("ben's", ["resp_1"], at) == {}


def test_a_route_with_a_shorter_time_ends_no_piece_earlier(store: Store) -> None:
    soon = NOW + timedelta(hours=1)
    with store.write() as tx:
        KeptPieces(tx).store([ANNS])
        KeptPieces(tx).store([replace(ANNS, expires_at=soon, at=NOW)])
        assert KeptPieces(tx).prolong("ann's", ["resp_1"], soon) == 1

    with store.read() as tx:
        assert KeptPieces(tx).find("ann's", ["resp_1"], soon)


def test_a_piece_is_replaced_by_its_newest_content(store: Store) -> None:
    newer = replace(ANNS, content={"history": ["piece:2"]}, size=18)
    with store.write() as tx:
        KeptPieces(tx).store([ANNS])
    with store.write() as tx:
        KeptPieces(tx).store([newer])

    with store.read() as tx:
        assert KeptPieces(tx).find("ann's", ["resp_1"], NOW) == {"resp_1": newer.content}
        assert KeptPieces(tx).total_bytes() == 18


def test_a_users_pieces_are_deleted_and_no_others(store: Store) -> None:
    several = replace(ANNS, id="resp_2", user_hash="hash-of-key hash-of-ann")
    other = replace(ANNS, id="resp_3", user_hash="hash-of-ben")
    with store.write() as tx:
        KeptPieces(tx).store([ANNS, several, other])
        assert KeptPieces(tx).purge(["hash-of-ann"]) == 2

    with store.read() as tx:
        ids = ["resp_1", "resp_2", "resp_3"]
        assert KeptPieces(tx).find("ann's", ids, NOW).keys() == {"resp_3"}


def test_more_ids_than_a_database_takes_at_once_are_found(store: Store) -> None:
    many = [replace(ANNS, id=f"resp_{number}") for number in range(1_100)]
    with store.write() as tx:
        KeptPieces(tx).store(many)

    with store.read() as tx:
        ids = [piece.id for piece in many]
        assert KeptPieces(tx).find("ann's", ids, NOW).keys() == set(ids)
