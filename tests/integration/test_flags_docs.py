"""The blocks of docs/how-to/feature-flags.md run as they stand, with the official SDKs."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration import test_clients_docs as clients_docs
from tests.support.router.live_router import KEY, running_router, snapshot
from tests.support.site.documented_commands import DOCS

PAGE = (DOCS / "how-to" / "feature-flags.md").read_text("utf-8")

pytestmark = [pytest.mark.verify, pytest.mark.req("A1"), pytest.mark.timeout(900)]


@pytest.mark.parametrize("client", clients_docs.clients(PAGE), ids=lambda client: client.name)
def test_an_official_sdk_evaluates_a_route_and_says_how_it_went(
    client: clients_docs.Client, tmp_path: Path
) -> None:
    programs = clients_docs.install(client, tmp_path / "client")
    folder = tmp_path / "home"
    folder.mkdir()
    if client.registry == "npm":
        (folder / "node_modules").symlink_to(programs.parent)
    with running_router(snapshot("http://127.0.0.1:9", weight_bps=10_000), tmp_path) as world:
        done = subprocess.run(  # noqa: S603 - the documented block is what is tried
            ["/bin/bash", "-c", clients_docs.commands(client, folder, world.url)],
            cwd=folder,
            env=clients_docs.environment(programs, folder, KEY),
            capture_output=True,
            text=True,
            timeout=clients_docs.RUN_S,
            check=False,
        )

    assert done.returncode == 0, done.stderr[-4000:]
    assert re.fullmatch(
        r"ask \S+ canary SPLIT\nfeedback (counted|not_scored)\n", done.stdout
    ), done.stdout
