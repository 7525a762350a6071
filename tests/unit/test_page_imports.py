"""What the dashboard imports only once a browser comes."""

import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, sys
from dashboard import serve
from dashboard.page_imports import PageImports
from harness.app.processes import HEALTH

async def app(scope, receive, send):
    asked.append(scope["path"])

async def ask(path):
    await pages({"type": "http", "path": path}, None, None)
    if pages._thread.ident:
        pages._thread.join()
    names = "numpy", "pandas", f"{serve.__package__}.data.queries"
    print(path, *(name for name in names if name in sys.modules))

asked, pages = [], PageImports(app)
for path in ("/healthz", HEALTH["ui"], "/overview", "/overview"):
    asyncio.run(ask(path))
print(asked)
"""


@pytest.mark.verify
def test_tables_and_charts_are_imported_when_a_browser_comes_and_not_for_a_probe() -> None:
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-W", "error", "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
    )

    asked, *imported = done.stdout.splitlines()[::-1]
    assert asked == "['/healthz', '/_stcore/health', '/overview', '/overview']"
    everything = ["numpy", "pandas", "queries"]
    assert [[name.split(".")[-1] for name in line.split()[1:]] for line in imported[::-1]] == [
        [],
        [],
        everything,
        everything,
    ]
