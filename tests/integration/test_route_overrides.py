"""What may be said of a route's overrides (D6), by whom it is checked, on every store."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.app import installation, seed
from harness.frame.errors import InputError, NotAllowed, NotFound
from harness.frame.people.access import Actor, Role
from harness.operations import queries
from harness.operations.context import Context
from harness.routing.control import routes
from harness.routing.route_settings import RequestKind, RouteSettings
from harness.routing.table import KIND_PRECEDENCE
from tests.support.control.bare_installation import read_history
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.command_line import installed
from tests.support.site.documented_commands import DOCS, shell_blocks

pytestmark = pytest.mark.req("D6")
ADA = Actor("ada", Role.ADMIN, "pr_ada")
VISION = RequestKind.VISION
EMBEDDING = RequestKind.EMBEDDING
PERSONAL = {"personal": frozenset({"sim"})}
FILE = """
providers: {sim: {kind: sim, api_base: 'http://127.0.0.1:9/v1'}}
data_classes: {personal: [sim]}
routes:
  mail: {incumbent: sim/base, data_class: personal, overrides: {vision: looks}}
  looks: {incumbent: sim/base, data_class: personal, overrides: {embedding: mail}}
"""


def override(
    ctx: Context,
    route: str,
    named: Mapping[str, str],
) -> None:
    routes.change_settings(ctx, ADA, route, lambda old: replace(old, overrides=named))


def classed(
    ctx: Context,
    route: str,
    data_class: str,
) -> None:
    routes.change_settings(ctx, ADA, route, lambda old: replace(old, data_class=data_class))


def test_an_override_is_kept_told_and_taken_away(world: SmallInstallation) -> None:
    ctx = world.context()
    routes.create_route(ctx, ADA, "looks", "sim/base", settings=RouteSettings())

    override(ctx, "chat", {VISION: "looks", EMBEDDING: "looks"})
    assert queries.find_route(ctx, "chat").settings.overrides == {
        VISION: "looks",
        EMBEDDING: "looks",
    }
    assert world.store.snapshot().table.routes["chat"].settings.overrides[VISION] == "looks"
    override(ctx, "chat", {})

    newest, before, *_ = read_history(ctx, "chat")
    assert before.reason == "overrides: none → vision=looks, embedding=looks"
    assert routes.describe_difference(before.route, newest.route) == {
        "overrides": ("vision=looks, embedding=looks", "")
    }


def test_an_override_names_another_route_that_there_is(world: SmallInstallation) -> None:
    ctx = world.context()

    with pytest.raises(NotFound, match="override for vision names 'looks'"):
        override(ctx, "chat", {VISION: "looks"})
    with pytest.raises(InputError, match="names the route itself"):
        override(ctx, "chat", {VISION: "chat"})
    settings = RouteSettings(overrides={VISION: "new"})
    with pytest.raises(InputError, match="names the route itself"):
        routes.create_route(ctx, ADA, "new", "sim/base", settings=settings)

    assert list(routes.load_table(ctx).routes) == ["chat"]
    assert queries.find_route(ctx, "chat").version == 1


@pytest.mark.req("D8")
def test_neither_end_of_an_override_gets_a_class_that_the_other_does_not_bear(
    world: SmallInstallation,
) -> None:
    ctx = replace(world.context(), data_classes=PERSONAL)
    routes.create_route(ctx, ADA, "looks", "sim/base", settings=RouteSettings())
    classed(ctx, "chat", "personal")
    with pytest.raises(NotAllowed, match="'looks', which has no data class"):
        override(ctx, "chat", {VISION: "looks"})

    classed(ctx, "looks", "personal")
    override(ctx, "chat", {VISION: "looks"})
    with pytest.raises(NotAllowed, match="'looks', which has no data class"):
        classed(ctx, "looks", "")
    classed(ctx, "chat", "")
    classed(ctx, "looks", "")
    with pytest.raises(NotAllowed, match="'chat' carries personal data"):
        classed(ctx, "chat", "personal")

    assert routes.list_override_violations(ctx) == []


def test_routes_of_the_file_may_name_one_another(
    world: SmallInstallation, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(FILE, encoding="utf-8")
    ctx = replace(world.context(), data_classes=PERSONAL)

    assert seed.apply_seed(ctx, installation.load_settings(file))[-2:] == [
        "route mail",
        "route looks",
    ]

    assert queries.find_route(ctx, "mail").settings.overrides == {VISION: "looks"}
    assert queries.find_route(ctx, "looks").settings.overrides == {EMBEDDING: "mail"}


def test_of_a_file_with_a_route_that_cannot_be_none_begins(
    world: SmallInstallation, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(FILE.replace("  looks:", "  chat:").replace("looks", "chat"), "utf-8")

    # `chat` is in the database already, without a class: there it counts.
    with pytest.raises(NotAllowed, match="'chat', which has no data class"):
        seed.apply_seed(
            replace(world.context(), data_classes=PERSONAL),
            installation.load_settings(file),
        )

    assert list(routes.load_table(world.context()).routes) == ["chat"]


PAGE = (DOCS / "how-to/overrides.md").read_text(encoding="utf-8")


def test_the_file_and_every_command_of_the_page_work(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        (settings,) = re.findall(
            r"```yaml\n(.*?)```",
            PAGE,
            flags=re.DOTALL,
        )
        (tmp_path / "swapproof.yaml").write_text(f"home: .swapproof\n{settings}", "utf-8")
        cli.run("init")
        for command in "".join(shell_blocks("how-to/overrides.md")).splitlines():
            name, *words = shlex.split(command)
            assert name == "swapproof"
            shown = cli.text(*words)
        named = cli.json("route", "show", "support")["route"]["settings"]["overrides"]

    assert "subagent=quick, vision=photos, embedding=vectors, x-team: billing=photos" in shown
    assert named == {
        "vision": "photos",
        "embedding": "vectors",
        "subagent": "quick",
        "tools": "quick",
        "x-team: billing": "photos",
    }


def checks(said: str) -> list[str]:
    return [line.split("  ")[0] for line in said.splitlines()]


@pytest.mark.req("D8")
def test_doctor_names_what_the_file_no_longer_allows(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        file = tmp_path / "swapproof.yaml"
        text = file.read_text("utf-8")
        strict = text.replace("personal: [sim]", "personal: [sim]\n  health: [sim]")
        file.write_text(strict, "utf-8")
        new = (
            "--incumbent",
            "sim/base",
            "--suite",
            "colours",
            "--data-class",
            "health",
        )
        cli.run("route", "create", "looks", *new)
        over = ("--data-class", "personal", "--override", "vision=looks")
        cli.run("route", "settings", "chat", *over)
        assert "overrides" not in checks(cli.text("doctor", exits=1))

        file.write_text(strict.replace("health: [sim]", "health: [sim, away]"), "utf-8")
        shown = " ".join(cli.text("doctor", exits=1).split())

    assert "the override for vision names 'looks', which carries health data" in shown


def test_the_table_has_the_kinds_in_the_order_in_which_they_count() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)

    assert rows == [RequestKind.SUBAGENT, *KIND_PRECEDENCE]
