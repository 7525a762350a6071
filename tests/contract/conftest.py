"""One body of tests for every store: SQLite, PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta

import pytest

from harness.app.store.store import Store
from harness.frame.signing.ed25519 import Ed25519Signatures
from tests.support.site.signing_keys import CONTROL
from tests.support.store.records import NOW

SECRET = b"a secret of the installation"


class FixedClock:
    def now(self) -> datetime:
        return NOW + timedelta(days=1)

    def monotonic(self) -> float:
        return 0.0


def open_store(url: str, signatures: Ed25519Signatures = CONTROL) -> Store:
    return Store(
        url,
        secret=SECRET,
        clock=FixedClock(),
        signatures=signatures,
    )


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with closing(open_store(database_url)) as opened:
        yield opened


Opener = Callable[[], Store]


@contextmanager
def opener(url: str) -> Iterator[Opener]:
    """Opens stores on one database, as several processes would; closes them at the end."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(open_store(url)))


@pytest.fixture
def sql_stores(database_url: str) -> Iterator[Opener]:
    with opener(database_url) as another:
        yield another


@pytest.fixture
def postgres_stores(postgres_url: str) -> Iterator[Opener]:
    with opener(postgres_url) as another:
        yield another


@pytest.fixture
def sqlite_stores(sqlite_url: str) -> Iterator[Opener]:
    with opener(sqlite_url) as another:
        yield another
