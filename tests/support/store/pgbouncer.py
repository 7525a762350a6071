"""Runs PgBouncer (Debian's package `pgbouncer`) in front of a PostgreSQL server of a test."""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psycopg
import pytest

from tests.support.site.processes import free_port
from tests.support.store.postgres_cluster import (
    ACCOUNT,
    ANSWERS_WITHIN_S,
    PostgresNode,
)

IGNORES: Final = "extra_float_digits,options"


def program() -> str:
    """Returns the path of PgBouncer; skips the test where it is not installed."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("PgBouncer is not installed here (apt-get install pgbouncer)")
    return found


@contextmanager
def pgbouncer(
    node: PostgresNode,
    mode: str,
    *,
    database: str = "",
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[str]:
    """Yields the address of a database of the node behind a pooler in `mode`: a new, empty one
    unless told otherwise.

    Args:
        settings: of PgBouncer, instead of those here.
    """
    if not database:
        database = f"pooled_{uuid.uuid4().hex}"
        node.query(f"CREATE DATABASE {database}")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="swapproof-pgbouncer-"))
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": mode,
        "default_pool_size": 5,
        "ignore_startup_parameters": IGNORES,
        **settings,
    }
    lines = [
        "[databases]",
        f"* = host=127.0.0.1 port={node.port} user=postgres",
        "[pgbouncer]",
        *(f"{name} = {value}" for name, value in given.items()),
    ]
    file = folder / "pgbouncer.ini"
    file.write_text("\n".join(lines) + "\n")
    command = [program(), str(file)]
    if os.geteuid() == 0:  # it refuses to be root
        folder.chmod(0o755)
        command = [
            "setpriv",
            f"--reuid={ACCOUNT}",
            "--clear-groups",
            *command,
        ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - of the package
    url = f"postgresql://postgres@127.0.0.1:{port}/{database}"
    try:
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + ANSWERS_WITHIN_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(psycopg.OperationalError):
            psycopg.connect(url).close()
            return
        time.sleep(0.1)
    raise AssertionError("PgBouncer does not answer")
