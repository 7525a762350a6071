"""Code of earlier commits on this version's schema: a process that ran before `db upgrade` goes
on reading and writing after it, and this version verifies what it wrote.
"""

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from harness.store import migrate
from tests.contract.conftest import open_store
from tests.support.router.router_process import eventually

pytestmark = [pytest.mark.verify, pytest.mark.both_databases, pytest.mark.req("G6")]

CHECKOUT = Path(__file__).parents[2]
# The last commits with these schemas.
COMMITS = {"0002": "efbaf836", "0015": "1ababefd"}
# By the tests' own records of that commit: routes, a proposal with its verdict, its canary.
EARLIER = """
import pathlib, sys, time
from harness.store import migrate
from tests.contract.conftest import open_store
from tests.support.store.records import seeded, start_canary

url, folder = sys.argv[1], pathlib.Path(sys.argv[2])
migrate.upgrade(url)
store = open_store(url)
store.etag()
(folder / "ready").touch()
while not (folder / "go").exists():
    time.sleep(0.1)
seeded(store)
with store.write() as tx:
    start_canary(tx)
assert "triage" in store.snapshot().table.routes
assert list(store.signature_faults()) == []
store.close()
"""


def code_of(commit: str, folder: Path) -> Path:
    """The files of a commit. Skips where the history is not here."""
    made, archive = folder / "earlier", folder / "earlier.tar"
    command = ["git", "archive", "--output", str(archive), commit]
    done = subprocess.run(  # noqa: S603 - a commit of ours
        command, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"commit {commit} is not in this checkout: {done.stderr}")
    shutil.unpack_archive(archive, made, filter="data")
    return made


@pytest.mark.parametrize("schema", sorted(COMMITS))
def test_a_process_of_an_earlier_commit_goes_on_after_the_upgrade(
    schema: str, empty_database_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", EARLIER, empty_database_url, str(tmp_path)]
    earlier = subprocess.Popen(  # noqa: S603 - our own code
        command, cwd=code_of(COMMITS[schema], tmp_path)
    )
    try:
        eventually(lambda: (tmp_path / "ready").exists() or earlier.poll() is not None)
        assert migrate.current(empty_database_url) == schema
        migrate.upgrade(empty_database_url)
        (tmp_path / "go").touch()
        assert earlier.wait(240) == 0
    finally:
        earlier.kill()
        earlier.wait()
    assert migrate.check(empty_database_url) == []
    with closing(open_store(empty_database_url)) as store:
        assert store.signature_faults() == []
        assert store.snapshot().table.routes["triage"].canary is not None
        with store.read() as tx:
            assert tx.audit.first_break() is None
