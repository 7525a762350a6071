"""The installation's PostgreSQL: a primary that acknowledges nothing its standby does not have,
and the standby, each on a host of its own. Every process knows both addresses, and takes
whichever accepts writes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from benchmarks.gameday.network import Network
from tests.support.store.postgres_cluster import PostgresCluster, postgres_cluster

HOSTS: Final = ("database-1", "database-2")


@dataclass
class Database:
    cluster: PostgresCluster

    @property
    def url(self) -> str:
        return self.cluster.url()

    def kill_primary(self) -> None:
        self.cluster.primary.kill()

    def promote(self) -> None:
        self.cluster.promote()

    def close(self) -> None:
        self.cluster.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Raises psycopg.OperationalError while no host accepts writes."""
        with psycopg.connect(self.url, connect_timeout=5) as db:
            return db.execute(query.encode(), values or None).fetchall()


@contextmanager
def on_two_hosts(network: Network) -> Iterator[Database]:
    """Both run, without our tables. The hosts are there."""
    first, second = HOSTS
    with postgres_cluster(
        hosts=(network.address(first, "back"), network.address(second, "back")),
        prefixes=(network.command(first), network.command(second)),
        synchronous=True,
        migrated=False,
    ) as cluster:
        yield Database(cluster)
