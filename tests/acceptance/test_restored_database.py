"""An older copy of the database: routers that served a newer head refuse it."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import before_simulator, served_revision

LOOKS_S = 5.0


@pytest.mark.req("G6", "F1")
@pytest.mark.verify
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_restored_database_is_refused_until_a_person_accepts_it(
    installing: Installing, database: str
) -> None:
    place = installing(
        lambda made: before_simulator(
            Simulator(made), support={"fallbacks": ["sim/sim-backup"]}
        ),
        database=database,
    )
    put_back = keep_copy(place)
    place.serve("router")
    control = place.serve("control")
    # What routers serve now is newer than the copy: a key is gone, the route has another chain.
    answer = place.api("POST", "/keys", {"name": "another"})
    key = answer.json()["text"]
    for text in ("one", "two"):
        place.api("PATCH", "/routes/support", {"description": text}).raise_for_status()
    eventually(lambda: place.chat("support", key=key).status_code == httpx.codes.OK)
    eventually(lambda: served_revision(place) >= 3)
    revision = served_revision(place)

    control.stop()
    put_back()
    assert_served_on(place, revision)
    # A router that starts anew has the newer head on its disk, and serves it.
    router = place.processes[-2]
    router.stop()
    place.serve("router")
    assert served_revision(place) == revision
    control = place.serve("control")
    eventually(lambda: "database_restored" in open_alerts(place))
    # What the restored database goes on with, routers do not follow.
    place.api("PATCH", "/routes/support", {"description": "three"})
    assert_served_on(place, revision)

    place.cli("db", "accept-restore", code=2)
    place.cli("db", "accept-restore", "--reason", "the disk was lost")
    place.api("PATCH", "/routes/support", {"description": "four"}).raise_for_status()
    eventually(lambda: served_revision(place) > revision)
    eventually(lambda: place.router("GET", "/readyz").json()["status"] == "ok")
    assert place.model_of("support") == "sim/sim-base"
    events = place.api("GET", "/audit?limit=20").json()["items"]
    (accepted,) = [one for one in events if one["action"] == "database.accept_restore"]
    assert accepted["details"]["reason"] == "the disk was lost"


def assert_served_on(place: Installation, revision: int) -> None:
    until = time.monotonic() + LOOKS_S
    while time.monotonic() < until:
        assert served_revision(place) == revision
        time.sleep(0.2)


def open_alerts(place: Installation) -> set[str]:
    answer = place.api("GET", "/alerts?open=true")
    return {alert["kind"] for alert in answer.json().get("items", ())}


def keep_copy(place: Installation) -> Callable[[], None]:
    """Copy the database, which nobody uses. Returns what puts the copy in its place."""
    if place.database.is_sqlite:
        return keep_file(place.database.file)
    address = place.database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(address) as connection:
        name = connection.info.dbname
    copy = f"{name}_copy"
    administer(address, "CREATE DATABASE {} TEMPLATE {}", copy, name)

    def put_back() -> None:
        administer(address, "DROP DATABASE {} WITH (FORCE)", name)
        administer(address, "CREATE DATABASE {} TEMPLATE {}", name, copy)
        administer(address, "DROP DATABASE {} WITH (FORCE)", copy)

    return put_back


def administer(
    address: str,
    statement: str,
    *names: str,
) -> None:
    """Run a statement about databases, from another one of the server's."""
    with psycopg.connect(address, dbname="postgres", autocommit=True) as connection:
        words = sql.SQL(statement).format(*map(sql.Identifier, names))
        connection.execute(words)


def keep_file(file: Path) -> Callable[[], None]:
    copy = file.with_suffix(".copy")
    shutil.copyfile(file, copy)

    def put_back() -> None:
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                file.with_name(file.name + suffix).unlink()
        new = file.with_suffix(".new")
        shutil.copyfile(copy, new)
        new.replace(file)

    return put_back
