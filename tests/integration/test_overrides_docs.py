"""What stands in docs/how-to/overrides.md works as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from harness.domain.routing.overrides import KIND_PRECEDENCE, RequestKind
from tests.support.site.command_line import installed

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/how-to/overrides.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.req("D6")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCS, flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_file_and_every_command_work(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        (tmp_path / "swapgate.yaml").write_text(f"home: .swapgate\n{block('yaml')}", "utf-8")
        cli.run("init")
        for command in block("sh").splitlines():
            name, *words = shlex.split(command)
            assert name == "swapgate"
            shown = cli.text(*words)
        named = cli.json("route", "show", "support")["route"]["settings"]["overrides"]

    assert "subagent=quick, vision=photos, embedding=vectors" in shown
    assert named == {"vision": "photos", "embedding": "vectors", "subagent": "quick"}


def checks(said: str) -> list[str]:
    return [line.split("  ")[0] for line in said.splitlines()]


@pytest.mark.req("D8")
def test_doctor_names_what_the_file_no_longer_allows(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        file = tmp_path / "swapgate.yaml"
        text = file.read_text("utf-8")
        strict = text.replace("personal: [sim]", "personal: [sim]\n  health: [sim]")
        file.write_text(strict, "utf-8")
        new = ("--incumbent", "sim/base", "--suite", "colours", "--data-class", "health")
        cli.run("route", "create", "looks", *new)
        over = ("--data-class", "personal", "--override", "vision=looks")
        cli.run("route", "settings", "chat", *over)
        assert "overrides" not in checks(cli.text("doctor", exits=1))

        file.write_text(strict.replace("health: [sim]", "health: [sim, away]"), "utf-8")
        shown = " ".join(cli.text("doctor", exits=1).split())

    assert "the override for vision names 'looks', which carries health data" in shown


def test_the_table_has_the_kinds_in_the_order_in_which_they_count() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCS, flags=re.MULTILINE)

    assert rows == [RequestKind.SUBAGENT, *KIND_PRECEDENCE]
