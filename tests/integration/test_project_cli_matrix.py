"""Every verb of the command line, with a key of each role of a project, about its own things
and about another's: what others have is answered as what nobody has.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import click
import pytest
from _pytest.mark import ParameterSet
from click.testing import CliRunner, Result

from harness.app.installation import open_installation
from harness.cli.frame.project_scopes import PROJECT_SCOPES, is_of_the_machine
from harness.cli.program import program
from harness.control.operations import dashboard_sessions
from harness.domain.operations.access import Role
from tests.contract import test_store_captures as captures
from tests.integration.test_cli_verbs import leaves
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.two_projects import raise_alerts, record_money

pytestmark = pytest.mark.req("G3")

OURS, THEIRS = "payments", "search"
ROLES = ("viewer", "proposer", "approver", "admin")
WHY = "--reason why"
# By verb the words after it, and the least role that it takes.
ROUTES = {
    "route create": ("{route}-2 --incumbent sim/base --suite colours", "admin"),
    "route show": ("{route}", "viewer"),
    "route history": ("{route}", "viewer"),
    "route diff": ("{route}", "viewer"),
    "route measured": ("{route}", "viewer"),
    "route traffic": ("{route}", "viewer"),
    "route settings": ("{route} --description words", "admin"),
    "route rollback": (f"{{route}} {WHY}", "approver"),
    "route freeze": (f"{{route}} --for 1h {WHY}", "approver"),
    "route unfreeze": (f"{{freeze}} {WHY}", "approver"),
    "route break-glass propose": (f"{{route}} sim/worse --for 1h {WHY}", "approver"),
    "route break-glass confirm": ("{glass}", "admin"),
    "route break-glass end": (f"{{glass}} {WHY}", "approver"),
    "route fallback list": ("{route}", "viewer"),
    "route fallback add": (f"{{route}} sim/equal --waive w --for 1d {WHY}", "admin"),
    "route fallback remove": (f"{{route}} sim/equal {WHY}", "admin"),
    "route fallback mark": (f"{{route}} sim/equal --capable {WHY}", "admin"),
    "route fallback order": (f"{{route}} sim/equal {WHY}", "admin"),
}
OTHERS = {
    "proposal create": ("{route} sim/worse", "proposer"),
    "proposal show": ("{proposal}", "viewer"),
    "proposal report": ("{proposal}", "viewer"),
    "proposal approve": ("{proposal}", "approver"),
    "proposal reject": (f"{{proposal}} {WHY}", "approver"),
    "proposal cancel": ("{proposal}", "approver"),
    "canary status": ("{route}", "viewer"),
    "canary explain": ("{route}", "viewer"),
    "canary plan": ("{route}", "viewer"),
    **{
        f"canary {verb}": (f"{{route}} {WHY}", "approver")
        for verb in ("pause", "resume", "advance", "promote", "abort", "finish")
    },
    "shadow status": ("{route}", "viewer"),
    "shadow start": (f"{{route}} sim/worse --usd-per-day none {WHY}", "approver"),
    "shadow stop": ("{route}", "proposer"),
    "switch throw": (f"provider:sim --route {{route}} {WHY}", "approver"),
    "switch lift": (f"{{switch}} {WHY}", "approver"),
    "eval run": ("{suite} sim/base --items 2", "proposer"),
    "eval show": ("{run}", "viewer"),
    "eval cancel": (f"{{run}} {WHY}", "proposer"),
    "drift status": ("{route}", "viewer"),
    "drift run": ("{route}", "proposer"),
    "drift accept": (f"{{route}} {WHY}", "approver"),
    "capture show": ("{capture}", "approver"),
    "capture export": ("{file} --route {route}", "approver"),
    "capture purge": ("--route {route}", "admin"),
    "key create": ("till --project {project}", "admin"),
    "key limits": ("{key} --budget-day 1", "admin"),
    "key opt-outs": ("{key} canary", "admin"),
    "key revoke": ("{key}", "admin"),
}
ABOUT = ROUTES | OTHERS
SHARED = {"model list": "", "model match": "base"}
LEAST = {verb: least for verb, (_, least) in ABOUT.items()} | dict.fromkeys(SHARED, "viewer")
OF_ONESELF = "key sign-in-link"
INTO_A_FILE = "audit export"
OTHER_VERBS = {OF_ONESELF, INTO_A_FILE}
LISTS = sorted(PROJECT_SCOPES.keys() - ABOUT.keys() - SHARED.keys() - OTHER_VERBS)
# Without a route these list the project's own.
ALSO_LISTS = ("route measured", "canary status", "shadow status", "drift status")
CLOSED = sorted(
    verb
    for verb in leaves(program)
    if verb not in PROJECT_SCOPES and not is_of_the_machine(verb)
)


def near(role: str, least: str) -> bool:
    """Whether `make test` tries the role where `least` is needed: it, and the one below."""
    return ROLES.index(least) - 1 <= ROLES.index(role) <= ROLES.index(least)


def by_role(cases: Mapping[str, str]) -> list[ParameterSet]:
    """Each verb with each role; cases: the least role of each verb."""
    return [
        pytest.param(verb, role, marks=() if near(role, least) else pytest.mark.verify)
        for verb, least in cases.items()
        for role in ROLES
    ]


@dataclass
class Site:
    """An installation with two projects. names: of each project's things."""

    cli: CommandLine
    names: dict[str, dict[str, str]]

    def ask(self, verb: str, role: str, words: str) -> Result:
        """As a person with this role in our project."""
        key = str(self.cli.folder / f"{OURS}-{role}.key")
        given = [*verb.split(), *words.split(), "--key-file", key]
        return CliRunner().invoke(program, given, prog_name="swapgate")

    def last_event(self) -> int:
        with self.cli.world.store.read() as tx:
            return tx.audit.tail(1)[0].number


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    file = shutil.copyfile(sqlite_template, tmp_path_factory.mktemp("db") / "swapgate.db")
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        installed(folder, f"sqlite:///{file}", monkeypatch) as cli,
    ):
        config, entries = folder / "swapgate.yaml", "suites:\n"
        for project in (OURS, THEIRS):
            name = f"{project}::colours"
            entries += f"  {name}: {{path: colours.jsonl, scorer: exact, drift: {{}}}}\n"
            cli.world.suites[name] = replace(cli.world.suites["colours"], name=name)
        text = config.read_text().replace("suites:\n", entries)
        config.write_text(f"{text}projects: {{{OURS}: {{}}, {THEIRS}: {{}}}}\n")
        yield Site(cli, {project: furnish(cli, project) for project in (OURS, THEIRS)})


def furnish(cli: CommandLine, project: str) -> dict[str, str]:
    """Makes one of each thing in the project, and a key of each role."""
    route, why = f"{project}::chat", ("--reason", "a look")
    suite = f"{project}::colours"
    cli.run("route", "create", route, "--incumbent", "sim/base", "--suite", suite)
    cli.run("shadow", "start", route, "sim/worse", "--usd-per-day", "none", *why)
    glass = cli.json("route", "break-glass", "propose", route, "sim/good", "--for", "1h", *why)
    cli.run("route", "break-glass", "end", glass["id"], *why)
    proposal = cli.json("proposal", "create", route, "sim/better")["proposal"]["id"]
    decided = cli.world.until_decided(proposal)
    cli.run("drift", "run", route)
    switch = cli.json("switch", "throw", "provider:sim", "--route", route, *why)
    freeze = cli.json("route", "freeze", route, "--for", "2h", *why)
    client = cli.json("key", "create", "shop", "--project", project)["key"]
    record_money(cli.world.context(), route, client["id"])
    raise_alerts(cli.world.context(), route, client["id"])
    at = cli.world.context().clock.now()
    capture = replace(
        captures.ONE, id=f"cap_{project}", route=route, at=at, expires_at=at + timedelta(days=9)
    )
    with cli.world.store.write() as tx:
        tx.captures.add(capture, most_per_day=9)
    for role in ROLES:
        words = ("key", "create", f"{project} {role}", "--role", role, "--project", project)
        (cli.folder / f"{project}-{role}.key").write_text(cli.json(*words)["text"])
    return {
        "project": project,
        "route": route,
        "suite": suite,
        "run": decided.runs[suite].candidate,
        "proposal": proposal,
        "glass": glass["id"],
        "switch": switch["id"],
        "freeze": freeze["id"],
        "key": client["id"],
        "capture": capture.id,
        "file": str(cli.folder / f"{project}.jsonl"),
    }


def test_every_verb_says_whose_it_is() -> None:
    assert PROJECT_SCOPES.keys() <= leaves(program)
    assert ABOUT.keys() <= PROJECT_SCOPES.keys()
    assert len(LISTS) > 7
    assert len(CLOSED) > 37


@pytest.mark.parametrize(
    ("verb", "roles"),
    [
        case
        for verb in ABOUT
        for case in (
            (verb, ROLES[-1:]),
            pytest.param(verb, ROLES[:-1], marks=pytest.mark.verify),
        )
    ],
)
def test_what_another_project_has_is_answered_as_what_nobody_has(
    verb: str, roles: Sequence[str], site: Site
) -> None:
    theirs, before = site.names[THEIRS], site.last_event()
    nobodys = {name: f"{id_[:-1]}~" for name, id_ in theirs.items()}

    def ask(role: str, names: dict[str, str]) -> tuple[int, str]:
        done = site.ask(verb, role, ABOUT[verb][0].format(**names))
        text = done.output
        for name in names.keys() - {"project"}:
            text = text.replace(names[name], "ID")
        return done.exit_code, text

    nothing = ask("admin", nobodys)
    assert nothing[0] in (1, 2, 7)
    assert "ID" in nothing[1] or OURS in nothing[1]
    assert [ask(role, theirs) for role in roles] == [nothing] * len(roles)
    assert site.last_event() == before


@pytest.mark.parametrize("verb", CLOSED)
def test_what_is_the_whole_installations_opens_to_no_projects_key(
    verb: str, site: Site
) -> None:
    before, words = site.last_event(), made_up_words(verb)
    for role in ("viewer", "admin"):
        done = site.ask(verb, role, words)
        assert done.exit_code == 7, done.output
        assert "use a key of the default project" in done.output
    assert site.last_event() == before


def test_a_link_signs_in_the_projects_person_who_prints_it_and_nobody_else(site: Site) -> None:
    before = site.last_event()
    for id_ in (site.names[THEIRS]["key"], "key_nobodys", site.names[OURS]["key"]):
        done = site.ask(OF_ONESELF, "admin", id_)
        assert done.exit_code == 7
        assert "for its own owner alone" in done.output
    assert site.last_event() == before
    done = site.ask(OF_ONESELF, "viewer", "--json")
    assert done.exit_code == 0, done.output
    link = json.loads(done.stdout)["url"].partition("#")[2]
    installation = open_installation(site.cli.folder / "swapgate.yaml")
    try:
        signed_in, _ = dashboard_sessions.open_link(
            installation.context,
            link,
            secret=installation.secret,
            lasts=timedelta(hours=1),
        )
    finally:
        installation.close()
    actor = signed_in.actor
    assert (actor.name, actor.role, actor.project) == (f"{OURS} viewer", Role.VIEWER, OURS)


def made_up_words(verb: str) -> str:
    """What the command needs to be called at all."""
    command: click.Command = program
    for name in verb.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    words = []
    for param in command.params:
        if not param.required:
            continue
        value = "swapgate.yaml"
        if isinstance(param.type, click.Choice):
            value = str(param.type.choices[0])
        elif isinstance(param.type, click.types.IntParamType):
            value = "1"
        words += [param.opts[0]] if isinstance(param, click.Option) else []
        words += [value] * max(param.nargs, 1)
    return " ".join(words)


@pytest.mark.parametrize(
    ("verb", "role"), by_role(dict.fromkeys([*LISTS, *ALSO_LISTS], "viewer"))
)
def test_a_list_has_the_projects_own_alone(verb: str, role: str, site: Site) -> None:
    mine = site.ask(verb, role, "--json")
    everything = site.cli.run(*verb.split(), "--json").stdout

    assert mine.exit_code == 0, mine.output
    ids = [*site.names[THEIRS].values()]
    assert not [id_ for id_ in ids if id_ in mine.output]
    if THEIRS in everything:
        assert OURS in mine.output
    else:
        assert verb in ("route failovers", "canary status"), everything


@pytest.mark.parametrize(("verb", "role"), by_role(LEAST))
def test_a_project_acts_on_its_own_by_role(verb: str, role: str, site: Site) -> None:
    words, least = ABOUT.get(verb) or (SHARED[verb], "viewer")
    Path(site.names[OURS]["file"]).unlink(missing_ok=True)
    done = site.ask(verb, role, words.format(**site.names[OURS]))

    if ROLES.index(role) < ROLES.index(least):
        assert done.exit_code == 7, done.output
        assert re.search(rf"is {role}; this needs \w+", done.output)
    elif least == "viewer":
        nothing_yet = "no canary yet" in done.output
        assert done.exit_code == 0 or nothing_yet, done.output
    else:
        assert done.exit_code == 0 or not verb.startswith("capture"), done.output
        assert "this needs" not in done.output
        assert "use a key of the default project" not in done.output
    assert THEIRS not in done.output


@pytest.mark.parametrize("role", ROLES)
def test_a_file_of_events_has_the_projects_own_alone(role: str, site: Site) -> None:
    file = site.cli.folder / f"{role}.jsonl"
    done = site.ask(INTO_A_FILE, role, str(file))
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(events) > 5
    assert {event["subject"] for event in events} >= {
        f"route {OURS}::chat",
        f"proposal {site.names[OURS]['proposal']}",
        f"key {site.names[OURS]['key']}",
    }
    assert THEIRS not in file.read_text()
    assert not [id_ for id_ in site.names[THEIRS].values() if id_ in file.read_text()]


def test_where_things_stand_is_told_to_the_installations_keys(site: Site) -> None:
    done = site.ask("status", "admin", "")
    assert done.exit_code == 7, done.output


def test_the_doctor_says_that_a_projects_key_looks_at_no_installation(site: Site) -> None:
    done = site.ask("doctor", "admin", "--json")
    (found,) = [
        c for c in json.loads(done.stdout)["checks"] if c["subject"] == "management key"
    ]
    assert (found["status"], done.exit_code) == ("fail", 1)
    assert "without a management key" in found["next_step"]
    assert "swapgate init" not in found["next_step"]


def test_a_new_key_is_of_the_project_of_whoever_makes_it(site: Site) -> None:
    done = site.ask("key create", "admin", "kiosk --json")
    assert done.exit_code == 0, done.output
    assert f'"project": "{OURS}"' in done.stdout
    refused = site.ask("key create", "admin", f"kiosk --project {THEIRS}")
    assert refused.exit_code == 7
    assert site.ask("key create", "admin", "eve --role viewer").exit_code == 7


def test_a_wrong_key_reads_nothing(site: Site) -> None:
    (site.cli.folder / "wrong.key").write_text("sg-mgmt-wrong")
    refused = site.cli.error("route", "list", "--key-file", "wrong.key", exits=7)
    assert "not known, or was revoked" in refused
