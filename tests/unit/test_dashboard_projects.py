"""People of a project on the dashboard: every page, by every role, and every dialog with things
of others.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Block, Element

from dashboard import current_user, downloads, page_frame
from dashboard.data import queries as page_queries
from dashboard.dialogs import action_dialogs
from harness.app.installation import CONFIG_VARIABLE
from harness.control.context import Context
from harness.control.evals import worker_supervision
from harness.control.operations import dashboard_sessions, keys, queries
from harness.control.operations.dashboard_sessions import ActorSession
from harness.control.privacy import captures as content
from harness.control.proposals import submission
from harness.control.routing import break_glass, freeze_changes, kill_switch, routes
from harness.control.routing.break_glass import BreakGlassRequest
from harness.control.routing.freeze_changes import FreezeRequest
from harness.control.routing.kill_switch import SwitchRequest
from harness.control.routing.traffic_report import load_traffic_report
from harness.control.shadow import shadows
from harness.control.shadow.shadows import ShadowRequest
from harness.domain.errors import NotAllowed
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.operations.access import SYSTEM, Actor, Role
from harness.domain.operations.principals import OPERATOR
from harness.domain.reliability.failover import Failover
from harness.domain.routing.kill_switch import SwitchSource, parse_force
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.domain.shadow.shadow import ShadowLimits
from tests.contract import test_store_captures as captures
from tests.support.browser.dashboard_data import ANA, BEN, lived_copy, opened
from tests.support.control.manual_clock import ManualClock
from tests.support.site.two_projects import raise_alerts
from tests.unit.test_dashboard_decisions import DIALOGS, RUN, SCRIPT, _fill_in
from tests.unit.test_dashboard_page_states import forget, now, page_app, pages, text

OURS, THEIRS = "payments", "search"
OPEN = (
    *("alerts", "audit", "canary", "captures", "compare", "keys", "overview", "policies"),
    *("proposals", "routes", "shadows", "spending", "suites", "traffic"),
)
# What only others have: routes, clients and reasons.
FOREIGN = (
    f"{THEIRS}::",
    f"of {THEIRS}",
    f"req_{THEIRS}",
    f"cap_{THEIRS}",
    "mail-triage",
    "support-chat",
    "newsletter",
    "math-tut",
)
APART = f"""
projects: {{{OURS}: {{}}, {THEIRS}: {{}}, bare: {{}}}}
suites:
  {OURS}::notes: {{path: notes.jsonl, scorer: exact}}
  {THEIRS}::notes: {{path: notes.jsonl, scorer: exact}}
"""
# What the file has of their own: a switch of others, and freezes of both at every time.
STANDING = f"""
switches: ["{THEIRS}::chat=provider:sim"]
freezes:
- from: Mon 00:00
  until: Sun 12:00
  reason: books
  routes: &both ["{OURS}::chat", "{THEIRS}::chat"]
- {{from: "Sun 11:00", until: "Mon 01:00", reason: books, routes: *both}}
"""
CLOSED = "this is about the whole installation: use a key of the default project"

RUN_OF = "next(run for run in list_runs(ctx).items if run.suite == '%s::notes')"
OF_OWN_THINGS = (
    *("break_glass", "content", "decision", "drift", "freeze", "key"),
    *("route", "shadow", "suite", "switch"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.req("G3"),
    # Streamlit says so wherever a script runs without its server.
    pytest.mark.filterwarnings("ignore:.*missing ScriptRunContext"),
]


@dataclass(frozen=True)
class Site:
    """An installation with two projects. names: of each one's things. keys: texts by role."""

    config: Path
    names: Mapping[str, Mapping[str, str]]
    keys: Mapping[str, str]
    proposals: Mapping[str, str]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    house = lived_copy(tmp_path_factory, now())
    with house.config.open("a", encoding="utf-8") as file:
        file.write(APART)
    notes = '{"id": "n1", "input": "Say yes", "target": "yes"}\n'
    house.config.with_name("notes.jsonl").write_text(notes, encoding="utf-8")
    with opened(house.config, ManualClock(now())) as installation:
        ctx, secret = installation.context, installation.secret
        names = {project: furnish(ctx, project, secret) for project in (OURS, THEIRS)}
        texts = {
            role.name.lower(): keys.create_key(
                ctx, SYSTEM, f"pat {role.name}", secret=secret, role=role, project=OURS
            )[1]
            for role in Role
        }
        texts["operator"] = keys.create_key(
            ctx, SYSTEM, "olga", secret=secret, role=Role.ADMIN
        )[1]
        texts["bare"] = keys.create_key(
            ctx, SYSTEM, "bea", secret=secret, role=Role.ADMIN, project="bare"
        )[1]
    with house.config.open("a", encoding="utf-8") as file:
        file.write(STANDING)
    return Site(house.config, names, texts, house.proposals)


def furnish(ctx: Context, project: str, secret: bytes) -> Mapping[str, str]:
    """Makes one of each thing in the project; each has the project's name in it."""
    route, why, moment = f"{project}::chat", f"a look of {project}", ctx.clock.now()
    settings = RouteSettings(suites=(RouteSuite("tickets", SuiteRole.PRIMARY),))
    routes.create_route(ctx, SYSTEM, route, "sim/sim-base", settings=settings)
    wanted = ShadowRequest(route, "sim/sim-worse", ShadowLimits(), why, timedelta(days=1))
    shadows.start_shadow(ctx, ANA, wanted)
    glass = break_glass.propose_break_glass(
        ctx,
        OPERATOR,
        BreakGlassRequest(
            route, "sim/sim-backup", why, timedelta(hours=1), through_freeze=False
        ),
    )
    break_glass.end_break_glass(ctx, OPERATOR, glass.id, reason=why)
    request = submission.ProposalRequest(route, "sim/sim-better", reason=why)
    proposal = submission.create_proposal(ctx, ANA, request)
    force = SwitchRequest(parse_force("provider:sim"), why, route, None)
    kill_switch.throw_switch(ctx, BEN, force, source=SwitchSource.REST)
    ends_at = moment + timedelta(hours=2)
    freeze_changes.add_freeze(ctx, BEN, FreezeRequest(route, ends_at, why, None))
    worker_supervision.start_run(ctx, ANA, f"{project}::notes", "sim/sim-base")
    client, _ = keys.create_key(
        ctx, SYSTEM, f"shop of {project}", secret=secret, project=project
    )
    with ctx.store.write() as tx:
        table = tx.routing.table().routes
        minute = moment.replace(second=0, microsecond=0) - timedelta(minutes=2)
        traffic = tx.observations.traffic(since=minute - timedelta(hours=1))[0]
        answered = replace(
            traffic,
            route=route,
            minute=minute,
            target=table[route].incumbent,
            worker=f"w-{project}",
        )
        # Of a canary that is over.
        let_in = replace(answered, arm="canary", requests=1, worker=f"c-{project}")
        tx.observations.append([], [answered, let_in])
        tx.failovers.append([left_model(project, minute)])
        capture = replace(captures.ONE, id=f"cap_{project}", route=route, at=minute)
        expiring = replace(capture, expires_at=moment + timedelta(days=9))
        tx.captures.add(expiring, most_per_day=9)
    raise_alerts(ctx, route, client.id)
    return {"route": route, "proposal": proposal.id, "key": client.id}


def left_model(project: str, at: datetime) -> Failover:
    return Failover(
        worker=f"w-{project}",
        number=1,
        at=at,
        request=f"req_{project}",
        route=f"{project}::chat",
        arm="incumbent",
        target="sim/sim-base",
        provider="sim",
        failure="overloaded",
        status=529,
        attempts=1,
        latency_ms=120.0,
        endpoint="chat",
        stream=False,
        body_bytes=80,
        messages=1,
        tools=0,
        user_hash="",
        next_target=None,
    )


@pytest.fixture
def site(template: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An installation of the test's own."""
    forget()
    home = shutil.copytree(template.config.parent, tmp_path / "home")
    config = home / template.config.name
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    yield replace(template, config=config)
    page_frame.serve_with(None)
    forget()


def sign_in(monkeypatch: pytest.MonkeyPatch, site: Site, who: str) -> ActorSession:
    installation = page_frame.installation()
    session, cookie = dashboard_sessions.open_with_key(
        installation.context,
        site.keys[who],
        secret=installation.secret,
        lasts=timedelta(hours=1),
    )
    monkeypatch.setattr(current_user, "session_cookie", lambda: cookie)
    return session


def opened_at(page: str, **query: str) -> AppTest:
    app = page_app(page)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def everything(app: AppTest) -> str:
    """All that the browser gets of a page, options and tables as well."""

    def read(node: Block | Element) -> Iterator[str]:
        if isinstance(node, Block):
            for child in node.children.values():
                yield from read(child)
        yield str(getattr(node, "proto", ""))

    written = "\n".join(read(app._tree))
    # As protocol buffers write text: with its quotes and what is no ASCII escaped.
    return unescape(written.replace("\\302\\240", " ").replace("\\'", "'").replace('\\"', '"'))


def last_event() -> int:
    with page_frame.installation().context.store.read() as tx:
        return tx.audit.tail(1)[0].number


@pytest.mark.parametrize("role", [role.name.lower() for role in Role])
def test_every_page_shows_a_projects_people_their_own_or_refuses(
    role: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, site, role)
    before, seen = last_event(), {page: everything(opened_at(page)) for page in pages()}

    assert last_event() == before
    assert {page for page, shown in seen.items() if CLOSED not in shown} == set(OPEN)
    told = {(page, word) for page, shown in seen.items() for word in FOREIGN if word in shown}
    assert told == set()
    silent = {page for page in OPEN if f"{OURS}::chat" not in seen[page]}
    assert silent <= {"keys", "suites"}
    assert f"shop of {OURS}" in seen["keys"]
    assert all(f"project <b>{OURS}</b>" in shown for shown in seen.values())


def test_the_operator_sees_on_the_same_pages_what_all_projects_have(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, site, "operator")
    seen = {page: everything(opened_at(page)) for page in OPEN}

    silent = {page for page in OPEN if not any(word in seen[page] for word in FOREIGN)}
    assert silent == set()
    assert not any("project <b>" in shown for shown in seen.values())


def test_an_admin_of_an_empty_project_makes_its_first_route_on_the_page(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sign_in(monkeypatch, site, "bare")
    seen = {page: everything(opened_at(page)) for page in OPEN}

    told = {(page, word) for page, shown in seen.items() for word in FOREIGN if word in shown}
    assert told == set()
    assert "swapgate route create bare::NAME" in seen["overview"]
    assert not opened_at("routes").button(key="add-route").disabled
    for name in (f"{THEIRS}::new", "new", "bare::new"):
        script = "from dashboard.dialogs import route_dialogs as d\nd.add_route()"
        app = AppTest.from_string(script, default_timeout=300)
        app.session_state[page_frame.STATE] = session.actor
        app.run().text_input(key="route-name").set_value(name)
        app.selectbox(key="route-incumbent").set_value("sim/sim-base")
        app.multiselect(key="suites-primary-new").set_value(["tickets"]).run()
        app.button(key="add-route-now").click().run()
        with page_frame.installation().context.store.read() as tx:
            assert (name in tx.routing.table().routes) == (name == "bare::new")


@pytest.mark.usefixtures("site")
def test_where_projects_are_kept_apart_nobody_reads_without_signing_in() -> None:
    for page in pages():
        app = opened_at(page)
        assert "Sign in</b> to Swapgate" in text(app)
        assert not [word for word in (*FOREIGN, OURS) if word in everything(app)]
    with pytest.raises(NotAllowed):
        page_frame.context()


TIME = re.compile(r"\d\d:\d\d(:\d\d)?|just now|\d+ (s|min) ago|\d+ (s|min|h) left")
ASKED = {
    "compare": ("id", "proposal"),
    "canary": ("route", "route"),
    "routes": ("route", "route"),
    "traffic": ("route", "route"),
    "policies": ("route", "route"),
    "proposals": ("route", "route"),
}


@pytest.mark.parametrize("page", ASKED)
def test_an_address_that_names_anothers_thing_is_answered_as_one_of_nobodys(
    page: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, site, "admin")
    field, thing = ASKED[page]
    theirs = site.names[THEIRS][thing]
    nobodys = theirs[:-1] + "~"
    ours = site.names[OURS]["route"]
    answers = set()
    for name in (theirs, nobodys, f"{OURS}::{theirs}", f"{theirs}::{ours}"):
        shown = text(opened_at(page, **{field: name}))
        answers.add(TIME.sub("", shown.replace(name, "ID")))
        assert "sim/sim-base" not in shown or page in ("traffic", "policies", "proposals")
    assert len(answers) == 1


def test_a_route_that_no_page_offered_is_not_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a browser sends need not be one of the options that it was shown."""
    sign_in(monkeypatch, site, "admin")
    theirs, ask = site.names[THEIRS]["route"], st.selectbox

    def answer(label: str, *given: Any, **more: Any) -> Any:
        return theirs if "oute" in label or "swap take" in label else ask(label, *given, **more)

    monkeypatch.setattr(st, "selectbox", answer)
    for page in ("canary", "routes", "traffic", "proposals", "policies"):
        shown = text(opened_at(page))
        assert f"there is no route '{theirs}'" in shown, page
        assert "sim/sim-base" not in shown, page


def test_no_dialog_changes_what_is_not_the_projects(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dialog is given things of the default project, and acted in by an admin of ours."""
    session = sign_in(monkeypatch, site, "admin")
    script = SCRIPT.replace("page_frame.context()", "page_frame.installation().context", 1)
    changed, before = {}, last_event()
    for name, arguments in DIALOGS:
        theirs = arguments.replace(RUN, RUN_OF % THEIRS).format(**site.proposals)
        given = f"{theirs}," if theirs else ""
        filled = script.replace("ARGUMENTS", given).replace("DIALOG", name)
        app = AppTest.from_string(filled, default_timeout=300)
        app.session_state[page_frame.STATE] = session.actor
        app.run()
        _fill_in(app)
        for button in app.button:
            if not button.disabled:
                button.click()
        assert not app.run().exception, name
        if last_event() != before:
            changed[name], before = last_event() - before, last_event()
    # A client key of ours, and what is captured of our routes: all that is asked for there.
    assert changed == {"key_dialogs.create_client_key": 1, "content_dialogs.export": 1}
    made = queries.list_keys(ours(session.actor)).items[-1]
    assert (made.project, made.role) == (OURS, None)


def test_a_dialog_about_ones_own_things_names_no_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, named = sign_in(monkeypatch, site, "admin"), set()
    mine = dict.fromkeys(site.proposals, site.names[OURS]["proposal"])
    for name, arguments in DIALOGS:
        if name.partition("_dialogs")[0] in OF_OWN_THINGS:
            about = arguments.replace(RUN, RUN_OF % OURS).format(**mine)
            given = f"{about}," if about else ""
            script = SCRIPT.replace("ARGUMENTS", given).replace("DIALOG", name)
            script = script.replace("faq", f"{OURS}::chat")
            app = AppTest.from_string(script, default_timeout=300)
            app.session_state[page_frame.STATE] = session.actor
            assert not app.run().exception, name
            _fill_in(app)
            assert action_dialogs.NOT_NOW not in text(app), name
            named |= {(name, word) for word in FOREIGN if word in everything(app)}
    assert named == set()


def ours(actor: Actor) -> Context:
    return replace(page_frame.installation().context, project=actor.project)


def test_an_admin_of_a_project_acts_on_its_own_routes_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sign_in(monkeypatch, site, "approver")
    for project in (THEIRS, OURS):
        proposal = site.names[project]["proposal"]
        script = (
            "import streamlit as st\n"
            "from dashboard.data import queries\n"
            "from dashboard.dialogs import decision_dialogs as d\n"
            "from dashboard import page_frame\n"
            "ctx = page_frame.installation().context\n"
            "if 'done' not in st.session_state:\n"
            f"    d.cancel(queries.comparison(ctx, '{proposal}'), None)\n"
        )
        app = AppTest.from_string(script, default_timeout=300)
        app.session_state[page_frame.STATE] = session.actor
        app.run()
        app.button[0].click().run()
        assert not app.exception
        assert ("done" in app.session_state) == (project == OURS)
        assert submission.get_proposal(page_frame.installation().context, proposal).open == (
            project == THEIRS
        )


def test_a_revoked_key_and_a_page_of_another_project_open_nothing_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sign_in(monkeypatch, site, "admin")
    app = opened_at("routes", route=f"{OURS}::chat")
    assert f"{OURS}::chat" in text(app)
    # The page was drawn for somebody of another project, in this browser.
    drawn = AppTest.from_string(
        "from dashboard import current_user as user\n"
        "from harness.control.operations.project_scope import own_list\n"
        "user.attempt(lambda actor: 1 / 0, lambda actor: 'done', scope=own_list)\n",
        default_timeout=300,
    )
    drawn.session_state[page_frame.STATE] = replace(session.actor, project=THEIRS)
    drawn.run()
    assert not drawn.exception
    assert current_user.OTHER_PROJECT in text(drawn)

    keys.revoke_key(page_frame.installation().context, OPERATOR, str(session.actor.key))
    app.run()
    assert "was revoked" in text(app)
    assert "Sign in</b> to Swapgate" in text(app)
    assert f"{OURS}::chat" not in everything(app)


@pytest.mark.parametrize(("who", "page"), [("viewer", "traffic"), ("operator", "audit")])
def test_a_download_has_what_its_page_has_though_its_thread_knows_no_visitor(
    who: str, page: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, site, who)
    loads: list[Callable[[], pd.DataFrame]] = []
    monkeypatch.setattr(downloads, "offer", lambda _, load: loads.append(load))
    opened_at(page)
    with ThreadPoolExecutor(1) as pool:
        table = pool.submit(loads[0]).result()
    assert len(table)
    if page == "traffic":
        assert set(table["route"]) == {f"{OURS}::chat"}


def test_captured_requests_are_exported_and_deleted_of_ones_own_routes_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sign_in(monkeypatch, site, "admin")
    ctx = ours(session.actor)
    exported = content.export_captures(ctx, session.actor)
    assert [line["id"] for line in exported.lines] == [f"cap_{OURS}"]
    for project in (THEIRS, OURS):
        app = AppTest.from_string(
            "from dashboard.dialogs import content_dialogs as d\n"
            f"d.purge(['{project}::chat'])\n",
            default_timeout=300,
        )
        app.session_state[page_frame.STATE] = session.actor
        app.session_state["purge-sure"] = True
        app.run()
        assert app.radio[0].options == ["Of one route", "One, by its id"]
        _fill_in(app)
        app.button(key="purge-now").click().run()
        with ctx.store.read() as tx:
            left = {capture.id for capture in tx.captures.list()}
        assert (f"cap_{OURS}" in left) == (project == THEIRS)
        assert f"cap_{THEIRS}" in left


@pytest.mark.usefixtures("site")
def test_traffic_and_reasons_are_of_ones_own_routes() -> None:
    whole = page_frame.installation().context
    mine = replace(whole, project=OURS)
    window = timedelta(hours=1)
    report = load_traffic_report(mine, window)
    everybodys = load_traffic_report(whole, window)
    assert [route.route for route in report.routes] == [f"{OURS}::chat"]
    assert sum(point.requests for point in report.course) == report.all.requests
    assert report.all.requests < everybodys.all.requests
    assert set(page_queries.route_names(mine)) == {f"{OURS}::chat"}
    assert [left.routes for left in queries.count_failovers(mine, report.since)] == [
        [f"{OURS}::chat"]
    ]
