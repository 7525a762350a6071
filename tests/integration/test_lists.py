import json
from typing import Final, get_origin

import pytest
import sqlalchemy as sa

from dashboard.data import queries
from dashboard.text import html
from harness.api.app import PREFIX, documented_answers
from harness.control.evals import recomputation
from harness.control.proposals import decisions, submission
from harness.control.routing import routes
from harness.domain.errors import NotFound, SignatureInvalid
from harness.domain.operations.access import SYSTEM
from harness.domain.pagination import INVALID_ROWS_HINT, Page
from harness.domain.routing.table import RouteSettings, RouteSuite
from tests.support.control.control_plane import BEN, SmallInstallation
from tests.support.site.command_line import CommandLine
from tests.support.site.management_api import Door
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F5")

# Path → why the whole of it is short. docs/reference/api.md says it in a sentence.
SMALL: Final = {
    "/canaries": "at most one per route",
    "/credentials/providers": "one per provider",
    "/dashboard-sessions": "who is signed in now",
    "/drift": "one per route and suite",
    "/models/ending": "models in use that end within 90 days",
    "/people": "people and services, not their keys",
    "/policies": "those of the file",
    "/proposals/{proposal}/approvals": "of one proposal",
    "/providers": "those that somebody configured",
    "/providers/matrix": "one per provider",
    "/providers/{provider}/models": "at most 5,000",
    "/routes/{route}/drift": "one per suite of a route",
    "/routes/{route}/fallbacks": "one chain",
    "/suites": "those of the file",
}


def test_every_list_of_the_api_is_paged_or_named_as_small(cli: CommandLine) -> None:
    paths = Door(cli.world).document["paths"]
    lists = {
        path: {parameter["name"] for parameter in paths[path]["get"].get("parameters", ())}
        for (path, method), kind in documented_answers().items()
        if method == "get" and get_origin(kind) is Page
    }
    whole = {path.removeprefix(PREFIX) for path in lists if "limit" not in lists[path]}
    assert whole == SMALL.keys()
    paged = [lists[path] for path in lists if path.removeprefix(PREFIX) not in SMALL]
    assert all({"limit", "after"} <= names for names in paged)


def forged(world: CommandLine) -> tuple[str, str]:
    """Two proposals that are over, the older one with another reason than was signed."""
    ids = []
    for _ in range(2):
        made = world.world.propose("sim/better")
        decisions.cancel_proposal(world.world.context(), BEN, made.id)
        ids.append(made.id)
    with owned(world.world.store) as db:
        statement = sa.text("UPDATE proposal SET reason = 'so they say' WHERE id = :id")
        db.execute(statement, {"id": ids[0]})
    return ids[0], ids[1]


@pytest.mark.req("F1")
def test_a_forged_proposal_is_named_in_every_list_and_hides_no_other(cli: CommandLine) -> None:
    bad, good = forged(cli)
    said = f"proposal {bad}: {INVALID_ROWS_HINT}"

    for words in (("proposal", "list"), ("proposal", "list", "--json")):
        done = cli.run(*words)
        assert good in done.stdout
        assert bad not in done.stdout
        assert said in done.stderr
    answer = Door(cli.world).send("GET", "/proposals").json()
    assert [item["id"] for item in answer["items"]] == [good]
    assert [(row["table"], row["key"]) for row in answer["invalid"]] == [("proposal", [bad])]
    assert answer["total"] == 2

    page = queries.proposals(cli.world.context())
    assert [row.proposal.id for row in page] == [good]
    assert f"proposal {bad}." in html.invalid(page.invalid)
    assert "swapgate db check" in html.invalid(page.invalid)
    # Whoever decides reads another way.
    with pytest.raises(SignatureInvalid, match=bad):
        submission.get_proposal(cli.world.context(), bad)


@pytest.mark.req("F1")
def test_a_forged_route_is_named_where_routes_are_listed_and_hides_no_other(
    cli: CommandLine,
) -> None:
    cli.run("route", "create", "good", "--incumbent", "sim/base", "--suite", "colours")
    with owned(cli.world.store) as db:
        db.execute(sa.text("UPDATE route_version SET reason = 'no' WHERE route = 'chat'"))

    done = cli.run("route", "list")
    assert "good" in done.stdout
    assert f"route_version chat/1: {INVALID_ROWS_HINT}" in done.stderr
    door = Door(cli.world)
    for path in ("/routes", "/overview"):
        answer = door.send("GET", path).json()
        assert (len(answer["items"]), answer["total"]) == (1, 2)
        assert answer["invalid"][0]["key"] == ["chat", "1"]
    with pytest.raises(SignatureInvalid, match="chat/1"):
        cli.world.propose("sim/better")


def test_pages_of_the_terminal_and_of_the_api_end_in_a_cursor(cli: CommandLine) -> None:
    for number in range(5):
        cli.run("key", "create", f"shop {number}")
    door = Door(cli.world)

    first = cli.run("key", "list", "--limit", "2", "--json")
    shown = json.loads(first.stdout)
    cursor = shown[-1]["id"]
    assert f"2 of 11: `--after {cursor}` shows the next" in first.stderr
    rest = cli.json("key", "list", "--after", cursor)
    assert len(rest) == 9

    everything: list[str] = []
    path = "/keys?limit=4"
    after: str | None = ""
    while after is not None:
        answer = door.send("GET", path + (f"&after={after}" if after else "")).json()
        everything += [item["id"] for item in answer["items"]]
        after = answer["next"]
    assert everything == [row["id"] for row in (*shown, *rest)]
    assert door.send("GET", "/audit?after=nonsense").status_code == 422
    assert door.send("GET", "/proposals?after=p_unknown").status_code == 404


@pytest.mark.req("F1")
def test_of_many_routes_of_a_suite_or_target_the_first_are_named_as_they_were_signed(
    cli: CommandLine,
) -> None:
    names = [f"r-{number:02}" for number in range(24)]
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    for name in names:
        routes.create_route(cli.world.context(), SYSTEM, name, "sim/base", settings=settings)
    shown = ", ".join(["chat", *names[:19]])
    for words in (("suite", "list"), ("model", "list")):
        assert f"{shown} and 5 more" in cli.text(*words)
    [base] = [row for row in cli.json("model", "list") if row["routes"]]
    assert base["routes"] == ["chat", *names]
    [colours] = [row for row in cli.json("suite", "list") if row["name"] == "colours"]
    assert colours["routes"] == ["chat", *names]

    with owned(cli.world.store) as db:
        for route, change in (("chat", "reason = 'no'"), ("r-23", "settings = 'no JSON'")):
            db.execute(sa.text(f"UPDATE route_version SET {change} WHERE route = '{route}'"))  # noqa: S608 - of above
    for words in (("suite", "list"), ("model", "list")):
        done = cli.run(*words)
        assert f"{', '.join(names[:20])} and 3 more" in done.stdout
        assert "chat" not in done.stdout
        for route in ("chat", "r-23"):
            assert f"route_version {route}/1: {INVALID_ROWS_HINT}" in done.stderr


@pytest.mark.parametrize("candidate", ["better", "worse", "equal"])
def test_a_verdict_comes_out_the_same_to_the_byte(
    world: SmallInstallation, candidate: str
) -> None:
    proposal = world.decided(f"sim/{candidate}")

    verdict = recomputation.replay_verdict(world.context(), proposal.id)

    assert verdict.agrees, verdict.differences
    assert verdict.stored_sha256 == verdict.again_sha256
    assert verdict.stored.id == proposal.verdict
    assert recomputation.replay_verdict(world.context(), verdict.stored.id) == verdict
    assert verdict.items["colours"] > 0


def test_an_open_proposal_has_nothing_to_replay(world: SmallInstallation) -> None:
    proposal = world.propose()

    with pytest.raises(NotFound, match="has no verdict yet"):
        recomputation.replay_verdict(world.context(), proposal.id)
    with pytest.raises(NotFound):
        recomputation.replay_verdict(world.context(), "v_nobody")


def test_a_score_that_was_changed_behind_our_back_is_named(world: SmallInstallation) -> None:
    proposal = world.decided("sim/worse")
    changed = proposal.runs["colours"].candidate
    with owned(world.store) as db:
        forged = "UPDATE sample SET strict = 1.0 - strict WHERE run = :run AND position = 0"
        db.execute(sa.text(forged), {"run": changed})

    with pytest.raises(SignatureInvalid, match=f"row sample {changed}"):
        recomputation.replay_verdict(world.context(), proposal.id)
