from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.serve import docs_routes
from harness.frame import package_data
from harness.frame.errors import NotFound, SwapproofError
from harness.interfaces.cli.operations import docs
from harness.interfaces.cli.program import program


@pytest.mark.parametrize(
    "asked",
    [
        "reference/config",
        "config",
        "docs/reference/config.md",
        "Reference/Config.html",
    ],
)
def test_a_page_is_found_by_its_path_or_its_last_part(asked: str) -> None:
    assert package_data.find_page(asked).title == "Configuration"


@pytest.mark.parametrize("asked", ["explanation", "docs/explanation/index.md"])
def test_a_folder_is_found_as_its_index(asked: str) -> None:
    assert package_data.find_page(asked).name == "explanation/index"


def test_what_is_no_page_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(NotFound, match="did you mean 'glossary'"):
        package_data.find_page("glosary")


def test_every_page_that_an_error_names_is_there() -> None:
    waiting = [SwapproofError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if error.docs_page:
            package_data.find_page(error.docs_page)


def test_without_a_built_site_the_page_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_data, "SITE", tmp_path)

    done = CliRunner().invoke(program, ["docs", "open", "metrics"])

    assert done.exit_code == 0
    assert done.stdout.startswith("# Metrics\n")
    assert done.stderr.endswith("reference/metrics.md\n")


def test_the_built_page_is_opened_in_the_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference").mkdir()
    page = tmp_path / "reference" / "metrics.html"
    page.write_text("<h1>Metrics</h1>")
    monkeypatch.setattr(package_data, "SITE", tmp_path)
    opened: list[str] = []

    def open_browser(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(docs, "open_browser", open_browser)

    done = CliRunner().invoke(program, ["docs", "open", "metrics"])

    assert (done.exit_code, done.stdout) == (0, "")
    assert opened == [page.as_uri()]


def test_the_dashboard_serves_the_site_or_the_markdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_data, "SITE", tmp_path)
    plain = TestClient(Starlette(routes=docs_routes()))
    (tmp_path / "index.html").write_text("<h1>Swapproof</h1>")
    built = TestClient(Starlette(routes=docs_routes()))

    assert plain.get("/docs/reference/metrics.html").text.startswith("# Metrics\n")
    assert plain.get("/docs/nothing.html").status_code == 404
    assert plain.get("/docs/..%2F..%2Fpyproject.toml").status_code == 404
    assert built.get("/docs").text == built.get("/docs/").text == "<h1>Swapproof</h1>"
    assert built.get("/docs/..%2F..%2Fpyproject.toml").status_code == 404
