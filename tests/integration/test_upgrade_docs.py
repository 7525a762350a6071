"""The page on upgrades leads from the version before the newest migration to this one and back,
while that version's router and control process run.
"""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.integration.test_earlier_commits import code_of
from tests.integration.test_earlier_processes import commit_before_the_newest_schema
from tests.integration.test_how_to import INSTALLED
from tests.support.site.documented_commands import DocumentedCommands

PAGE = "how-to/upgrade.md"
OLDER, NEWER = 'export PATH="$OLDER:$PATH"', 'export PATH="$NEWER:$PATH"'
READY = "until curl -sf http://127.0.0.1:{port}/readyz >/dev/null; do sleep 0.2; done"
# Both run in the older version until it is said that they stop.
SERVED = f"""\
{OLDER}
{INSTALLED}
swapgate serve router &
swapgate serve control &
control=$!
{READY.format(port=8080)}
{READY.format(port=8081)}
"""
# What the page says in words: what runs goes on, and says so; then control processes stop.
MEANWHILE = f"""\
"$OLDER/swapgate" db check
"$OLDER/swapgate" proposal create support sim/sim-better --dry-run >/dev/null
{READY.format(port=8080)}
{READY.format(port=8081)}
kill $control
wait $control
"""
BACK = f"""\
echo "the older version again"
{OLDER}
swapgate db upgrade
swapgate db check
swapgate audit verify
swapgate serve control &
{READY.format(port=8080)}
{READY.format(port=8081)}
"""


def version_before(folder: Path) -> Path:
    """A folder with the command `swapgate` of the commit before the newest migration."""
    code, commands = code_of(commit_before_the_newest_schema(), folder), folder / "older"
    commands.mkdir()
    command = commands / "swapgate"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{code}" exec "{sys.executable}" -m swapgate "$@"\n',
        encoding="utf-8",
    )
    command.chmod(0o755)
    return commands


@pytest.mark.verify
@pytest.mark.req("G6")
@pytest.mark.timeout(900)
def test_the_page_leads_from_the_version_before_to_this_one_and_back(tmp_path: Path) -> None:
    older, installed = version_before(tmp_path), tmp_path / "installed"
    installed.mkdir()
    rehearsal = 'swapgate db downgrade --reason "a rehearsal" --dry-run\n'
    page = DocumentedCommands(
        PAGE,
        installed,
        before=SERVED,
        changes={
            "swapgate db upgrade\n": f"{NEWER}\nswapgate db upgrade\n",
            "swapgate doctor\n": "swapgate doctor || test $? = 1\n",  # of the simulator
            rehearsal: f"{MEANWHILE}{rehearsal}",
        },
        after=BACK,
    )

    said = page.run(
        timeout_s=800, OLDER=str(older), NEWER=os.fspath(Path(sys.executable).parent)
    )

    newest, before = re.findall(r"would go back from revision (\d+) to (\d+)", said)[0]
    assert "a newer version brought the database to" in said
    assert f"the database went back from revision {newest} to {before}" in said
    _, _, again = said.partition("the older version again")
    assert "the database is at the newest revision" in again
    assert "every row is as it was signed" in again
