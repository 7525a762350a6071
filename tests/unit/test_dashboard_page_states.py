import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner
from streamlit.testing.v1 import AppTest

from dashboard import current_user, page_frame, sign_in_page
from dashboard.views import route_timeline, samples
from harness.agents import agents, switches
from harness.app.installation import CONFIG_VARIABLE, open_installation
from harness.canary import status as canary_status
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import ProviderAway, StoreUnavailable
from harness.frame.formatting import format_signed
from harness.frame.people.access import OPERATOR, SYSTEM, Role
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import Sample
from harness.gate.verdict import InfraError
from harness.interfaces.cli.canary_facts import rollout_facts
from harness.interfaces.cli.program import program as command_line
from harness.operations import dashboard_sessions, keys
from harness.operations.dashboard_sessions import ActorSession
from harness.proposals.report import comparison
from harness.proposals.report.comparison import ArmFigures
from harness.proposals.report.findings import (
    describe_absence,
    list_drawbacks,
)
from harness.providers.force import (
    ENVIRONMENT_VARIABLE,
    SwitchSource,
    parse_force,
)
from harness.providers.registry import targets
from harness.providers.target import Provider
from harness.routing.agent import ModelChoice, ModelKind
from harness.routing.control import freezes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from tests.support.browser import agent_sessions
from tests.support.browser.dashboard_data import (
    ANA,
    XSS,
    Lived,
    configured,
    lived_copy,
    opened,
)
from tests.support.control.manual_clock import ManualClock

MAIN = Path(current_user.__file__).with_name("main.py")
PAGES = (
    "overview",
    "compare",
    "proposals",
    "canary",
    "routes",
    "providers",
    "sessions",
)
EVERY_PAGE = (
    *PAGES,
    "audit",
    "keys",
    "labels",
    "shadows",
    "suites",
    "traffic",
)
# What fills an empty page; of the others it is `swapproof init`.
FILLED_BY = {
    "compare": "<code>swapproof proposal create",
    "keys": "<code>swapproof key create CLIENT",
    "labels": "<code>swapproof label ROUTE",
    "providers": "<code>swapproof provider add openai",
    "shadows": "<code>swapproof shadow start",
    "routes": "<code>swapproof init --guided",
    "sessions": "<code>swapproof docs open agents",
    "suites": "No eval has run yet.",
    "traffic": "<code>swapproof sim traffic",
}
# Why a button is off for who may only read.
SHUT = r"vera has the role viewer(; this needs|: .+ needs? )"
# What the scripts of `dialog` stand on.
DIALOGS = """
import streamlit as st
from dashboard import page_frame
from dashboard.operation_dialogs import operation_dialog, operation_openers
from dashboard.views import (
    canary_text, decisions, keys, route_holds, route_timeline, shadows
)
from dashboard.views import provider_dialogs as providers
from dashboard.views import route_settings as routes
from dashboard.views import suite_dialogs as suites
from harness.operations import queries
from harness.proposals.operations import BREAK_GLASSES, CANCEL_PROPOSAL
from harness.routing.control.operations import LIFT_SWITCH

ctx, kept = page_frame.context(), st.session_state.setdefault
"""
AGE = re.compile(r"\d+ (?:s|min|h)\b")
# What changes nothing.
ANYBODYS = ("Sign out", "Refresh", "Try again")

pytestmark = pytest.mark.slow


def now() -> datetime:
    """The machine's, which the pages read."""
    return datetime.now(UTC)  # noqa: TID251


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    house = lived_copy(tmp_path_factory, now())
    hold_session(house, now())
    return house


def hold_session(house: Lived, at: datetime) -> None:
    """One user's session with an agent, which asks for another model."""
    with opened(house.config, ManualClock(at)) as installation:
        ctx = installation.context
        choice = ModelChoice("quiet", ModelKind.ROUTE, route="quiet")
        agent = agents.create_agent(ctx, agent_sessions.OPERATOR, "guide", choice)
        session = agent_sessions.open_session(ctx, agent)
        other = ModelChoice("faq", ModelKind.ROUTE, route="faq")
        switches.request_switch(ctx, session.id, (other,), "it writes better")


def copied(house: Lived, folder: Path) -> Path:
    """The configuration file of a house that a test may change."""
    return shutil.copytree(house.config.parent, folder / "copy") / house.config.name


@pytest.fixture(autouse=True)
def fresh_installation() -> Iterator[None]:
    """Each test opens its own; main.py keeps one for as long as the process lives."""
    forget()
    yield
    page_frame.serve_with(None)
    forget()


def forget() -> None:
    if page_frame.installation.cache_info().currsize:
        page_frame.installation().close()
    page_frame.installation.cache_clear()
    page_frame.first_break.clear()


def shown(
    monkeypatch: pytest.MonkeyPatch,
    config: Path,
    page: str,
    query: Mapping[str, str] | None = None,
) -> AppTest:
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    app = page_app(page)
    for name, value in (query or {}).items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def page_app(page: str) -> AppTest:
    """The dashboard at a page that it has still to draw, without the Overview before it."""
    return AppTest.from_file(str(MAIN), default_timeout=300).switch_page(f"views/{page}.py")


def dialog(*lines: str) -> AppTest:
    """Opens a dialog in every run: AppTest draws the whole page anew for each click."""
    return AppTest.from_string("\n".join((DIALOGS, *lines)), default_timeout=120).run()


def signed_in_as(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    role: Role,
) -> None:
    """A session of a new key, whose cookie the browser sends."""
    ctx = page_frame.installation().context
    secret = page_frame.installation().secret
    _, key = keys.create_key(
        ctx,
        SYSTEM,
        name,
        secret=secret,
        role=role,
    )
    lasts = timedelta(hours=1)
    cookie = dashboard_sessions.open_with_key(
        ctx,
        key,
        secret=secret,
        lasts=lasts,
    )[1]
    monkeypatch.setattr(current_user, "session_cookie", lambda: cookie)


def pages() -> Sequence[str]:
    source = MAIN.read_text(encoding="utf-8")
    return sorted(re.findall(r'^ {8}"(\w+)": "', source, re.MULTILINE))


FIELDS = (
    "text_input",
    "text_area",
    "number_input",
    "selectbox",
    "multiselect",
    "checkbox",
    "datetime_input",
)


def fill(
    app: AppTest,
    fields: Mapping[str, object],
    press: str = "",
) -> None:
    for key, value in fields.items():
        known: list[Any] = [field for kind in FIELDS for field in app.get(kind)]
        (field,) = [field for field in known if field.key == key]
        field.set_value(value).run()
    if press:
        app.button(key=press).click().run()
    assert not app.exception


def text(app: AppTest) -> str:
    bodies = "\n".join(str(element.proto.body) for element in app.get("html"))
    return unescape(bodies).replace("\N{NO-BREAK SPACE}", " ")


def test_an_empty_page_names_what_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path)
    for page in EVERY_PAGE:
        said = text(shown(monkeypatch, config, page))
        assert FILLED_BY.get(page, "<code>swapproof init") in said, page
        assert 'role="alert"' not in said, page


@pytest.mark.parametrize("page", ["canary", "routes"])
def test_a_route_that_is_not_there_is_told_and_no_other_shown(
    page: str,
    lived_in: Lived,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = shown(monkeypatch, lived_in.config, page, {"route": "no<b>pe"})

    assert "<h1>There is no route <b>no<b>pe</b></h1>" in text(app)
    assert "<code>swapproof route list</code>" in text(app)
    assert "sim/sim-base" not in text(app)
    app.selectbox(key="instead").select("faq").run()
    assert app.query_params["route"] == "faq"


@pytest.mark.req("A7", "A8")
def test_a_comparison_shows_what_its_verdict_rests_on_and_what_to_do_next(
    lived_in: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared(name: str) -> AppTest:
        query = {"id": lived_in.proposals[name]}
        return shown(monkeypatch, lived_in.config, "compare", query)

    passed = compared("canary")
    with opened(lived_in.config, ManualClock(now())) as installation:
        found = comparison.load_comparison(installation.context, lived_in.proposals["canary"])
    assert found.verdict is not None
    primary = found.verdict.suites[-1]
    for words in (
        "PASSED: the candidate may replace the model",
        f"Support-ticket routing</b>: {format_signed(primary.delta * 100)} points, 95 % CI",
        f"must be better than 0; {primary.n_used} pairs",
        "allowed loss 5.0",
        f"· {found.basis.items_used} in all" if found.basis else "?",
    ):
        assert words in text(passed), words
    assert "Watch the canary" in [button.label for button in passed.button]
    assert text(passed).count('class="figure"') == 5
    assert text(passed).count('class="bar"') == 8
    assert len(passed.get("vega_lite_chart")) == 1

    mismatch = compared("mismatch")
    said = "\n".join([text(mismatch), *(code.value for code in mismatch.code)])
    for words in (
        "FORMAT MISMATCH",
        "The candidate puts its answer into a code fence",
        "swapproof model add sim/sim-fenced",
        "swapproof proposal create order-forms t_",
    ):
        assert words in said, words
    assert said.count("0 of 100, format ignored 100 of 100") == 5
    running = text(compared("evaluating"))
    assert "NOT DECIDED YET: 12 of 200 items" in running
    assert running.count('role="meter"') == 1
    assert "regressed" not in running


@pytest.mark.req("F2")
def test_what_speaks_against_a_candidate_has_intervals_and_says_what_chance_explains(
    lived_in: Lived,
) -> None:
    with opened(lived_in.config, ManualClock(now())) as installation:
        found = comparison.load_comparison(installation.context, lived_in.proposals["canary"])
    fast = ArmFigures(
        200,
        1.0,
        0.9,
        1.2,
        0.0,
        (0.9, 1.1),
        (0.8, 1.0),
        (1.1, 1.3),
        (0.0, 0.02),
    )
    slow = replace(
        fast,
        p95_s=2.1,
        p95_interval_s=(2.0, 2.2),
        cost_usd_per_1000=2.3,
        cost_interval_usd_per_1000=(2.2, 2.4),
    )
    better = replace(found, incumbent_figures=slow, candidate_figures=fast)
    worse = replace(found, incumbent_figures=fast, candidate_figures=slow)

    assert list_drawbacks(better) == []
    assert describe_absence(better).startswith("No drawback: it is not slower")
    slower, dearer = list_drawbacks(worse)
    assert (slower.what, slower.clear) == ("0.90 s slower at p95", True)
    assert slower.text == (
        "2.10 s (95 % CI 2.00 s to 2.20 s) against 1.20 s (95 % CI 1.10 s to 1.30 s)."
    )
    assert dearer.what == "130 % dearer"
    few = replace(worse, candidate_figures=replace(slow, p95_interval_s=None))
    (unsure,) = [drawback for drawback in list_drawbacks(few) if not drawback.clear]
    assert unsure.text.endswith("Too few answers for an interval.")
    given = {field.name: getattr(found.verdict, field.name) for field in fields(InfraError)}
    unmeasured = replace(worse, verdict=InfraError(**given))
    assert list_drawbacks(unmeasured) == []
    assert describe_absence(unmeasured) == "Unknown: it was not measured."


def test_a_large_comparison_shows_the_same_and_its_figures_read_no_sample_whole(
    lived_in: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"id": lived_in.proposals["failed"]}
    whole = text(shown(monkeypatch, lived_in.config, "compare", query))
    monkeypatch.setattr(samples, "MOST_TEXTS", 0)
    light = text(shown(monkeypatch, lived_in.config, "compare", query))
    made: list[str] = []
    init = Sample.__init__

    def count(
        sample: Sample,
        *given: Any,
        **named: Any,
    ) -> None:
        init(sample, *given, **named)
        made.append(sample.item)

    monkeypatch.setattr(Sample, "__init__", count)
    with opened(lived_in.config, ManualClock(now())) as installation:
        view = samples.load_comparison_view(installation.context, query["id"])
        assert view.comparison.incumbent_figures.samples >= len(view.index) > 0
        assert made == []
    # Between the two pages a minute may begin.
    assert AGE.sub("", light) == AGE.sub("", whole)


def test_a_card_says_for_whom_a_comparison_waits_what_it_costs_and_offers_to_ask_again(
    lived_in: Lived,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = copied(lived_in, tmp_path)
    proposal = lived_in.proposals["evaluating"]
    with (
        opened(config, ManualClock(now())) as installation,
        installation.store.write() as tx,
    ):
        (pair,) = Proposals(tx).get(proposal).runs.values()
        run = EvalRuns(tx).get(pair.candidate)
        EvalRuns(tx).lease(
            run.id,
            "w",
            now=now(),
            until=now() + timedelta(minutes=1),
        )
        away = str(ProviderAway("sim", "connection refused", 20.0))
        tried = now() + timedelta(minutes=5)
        wait = replace(
            run,
            waits_since=now(),
            patience_since=now(),
            retry_at=tried,
        )
        assert EvalRuns(tx).wait(replace(wait, message=away), "w")

    for page in ("proposals", "compare"):
        app = shown(monkeypatch, config, page, {"id": proposal})
        assert "It waits for sim since " in text(app), page
        assert f": connection refused; next try {tried:%H:%M:%S}." in text(app), page
        assert "sim/sim-better costs " in text(app), page
        assert f"retry-{proposal}" in [button.key for button in app.button], page


@pytest.mark.req("F3")
def test_a_hold_is_said_first_alike_by_canary_page_and_command_line_before_what_was_done(
    lived_in: Lived,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = copied(lived_in, tmp_path)
    with opened(config, ManualClock(now())) as installation:
        ctx = installation.context
        (running,) = canary_status.list_canaries(ctx, route="support-chat")
        with ctx.store.write() as tx:
            alerts.raise_alert(
                tx,
                AlertKind.CANARY_HELD,
                running.rollout.id,
                subject="route support-chat",
                title="it is on hold",
                text="Router w1 has an old snapshot, see `/readyz`.",
            )
        (held,) = canary_status.list_canaries(ctx, route="support-chat")

    said = text(shown(monkeypatch, config, "canary", {"route": "support-chat"}))

    assert "<h1><b>sim/sim-better</b> is on hold at 5 %</h1>" in said
    assert "see <code>/readyz</code>" in said[: said.index("sg-steps")]
    facts = dict(rollout_facts(held))
    assert facts["state"] == "on hold at 5 %"
    assert facts["why"] == "Router w1 has an old snapshot, see `/readyz`."
    assert f"<b>Next:</b> {facts['next']}" in said
    table = said[said.index("sg-measures") :]
    assert "<b>1 % to 5 %</b><br>by swapproof" in table
    assert "callers at 1 %, no evidence of harm beyond tolerance" in table
    assert "<b>enough callers</b>" in table


def test_an_old_page_says_what_is_stale_and_how_old_all_else_is(
    lived_in: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twenty days later.
    later = ManualClock(now() + timedelta(days=20))
    monkeypatch.setattr(
        "dashboard.page_frame.open_installation",
        lambda: replace(open_installation(), clock=later),
    )
    says = {
        "audit": "20 d ago",
        "canary": "No request has arrived since",
        "compare": "This verdict is no longer valid: it expired 6 d ago",
        "overview": "STALE",
        "proposals": "STALE: the verdict expired 6 d ago",
        "routes": "on 200 items, 20 d ago",
        "sessions": "20 d ago",
        "suites": "20 d ago",
        "traffic": "No request has been recorded since",
    }
    queries = {"compare": {"id": lived_in.proposals["failed"]}}
    for page, sentence in says.items():
        app = shown(monkeypatch, lived_in.config, page, queries.get(page))
        assert sentence in text(app), page
    assert {*pages()} - {*says} == {"keys", "labels", "providers", "shadows"}


def test_a_router_that_did_not_hear_of_a_change_is_named(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its own: only the traffic of the last ten minutes tells.
    app = shown(monkeypatch, lived_copy(tmp_path_factory, now()).config, "routes")

    app.selectbox(key="route").select("mail-triage").run()

    assert "The router still serves revision 1;" in text(app)


def test_a_lost_database_is_named_with_what_still_works_and_tried_again(
    lived_in: Lived,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = copied(lived_in, tmp_path)
    take_database_away(config.parent)
    apps = {page: shown(monkeypatch, config, page) for page in EVERY_PAGE}
    for page, app in apps.items():
        assert "The database does not answer" in text(app), page
        assert "The router continues to serve its last valid table" in text(app), page

    database = config.parent / "state" / "swapproof.db"
    database.rmdir()
    (config.parent / "kept.db").rename(database)
    for page, app in apps.items():
        app.button[0].click().run()
        assert "Try again" not in [button.label for button in app.button], page
        assert "<h1>" in text(app), page


def test_an_unknown_comparison_is_said_plainly_and_a_fault_of_ours_shows_no_traceback(
    lived_in: Lived,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    app = shown(monkeypatch, lived_in.config, "compare", {"id": "p_nothing"})
    assert "there is no proposal p_nothing" in text(app)
    assert "The other pages work." in text(app)
    monkeypatch.setattr("dashboard.views.samples.load", broken)
    app = shown(monkeypatch, lived_in.config, "compare")

    assert "An unexpected error; its details are in the dashboard's log." in text(app)
    assert "a secret detail" not in text(app)
    assert "a secret detail" in caplog.text


@pytest.mark.req("B11", "F5")
def test_a_switch_in_force_and_a_broken_audit_log_are_shown_on_every_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "support-chat=provider:sim")
    ctx = page_frame.context()
    targets.put_provider(ctx, ANA, Provider("sim", "sim", "http://127.0.0.1:9/v1"))
    thrown, lifted = (
        freezes.set_switch(
            ctx,
            ANA,
            SwitchRequest(parse_force("provider:sim"), why),
            source=SwitchSource.CLI,
        )
        for why in (XSS, "a drill that is over")
    )
    freezes.lift_switch(ctx, ANA, lifted.id, reason="over")
    monkeypatch.setattr(
        "harness.frame.signing.audit_log.AuditLog.first_break",
        lambda _: 1234,
    )

    for page in PAGES:
        app = shown(monkeypatch, config, page)
        told = text(app)
        assert "provider:sim is forced for route support-chat" in told, page
        assert f"swapproof switch lift {thrown.id}" in told, page
        assert "a drill that is over" not in told, page
        assert "The audit log is broken at event 1,234." in told, page
        assert not any("<script>" in str(part.proto.body) for part in app.get("html")), page


@pytest.mark.req("B9")
def test_what_is_wrong_now_is_on_the_overview_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    ctx = page_frame.context()
    with ctx.store.write() as tx:
        for number in range(7):
            alerts.raise_alert(
                tx,
                AlertKind.JOB_FAILED,
                f"job {number}",
                subject="s",
                title=XSS,
                text="x",
            )
        alerts.raise_alert(
            tx,
            AlertKind.PROMOTED,
            "r",
            subject="s",
            title="it is over",
            text="x",
        )
    with ctx.store.write() as tx:
        alerts.raise_alert(
            tx,
            AlertKind.BREAKER_OPEN,
            "b",
            subject="s",
            title="the newest",
            text="x",
        )

    app = shown(monkeypatch, config, "overview")

    told, _, table = text(app).partition('<td data-head="Alert">')
    # Critical ones first: a newer warning is among those that are left out.
    assert told.count("see the control process's log") == 5
    assert told.count('<a href="docs/runbook.html#job_failed" ') == 5
    assert "3 more alerts" in told
    assert "the newest" not in told
    assert "it is over" not in told
    assert "the newest" in table
    assert "it is over" in table
    assert not any("<script>" in str(element.proto.body) for element in app.get("html"))


def test_the_timeline_of_a_route_shows_who_served_and_who_had_a_share(
    lived_in: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(lived_in.config, ManualClock(now())) as installation:
        view = route_timeline.load_route(installation.context, "faq")
    stays = route_timeline.list_stays(view)

    served, shared = (
        [(stay["model"], stay["weight_bps"]) for stay in stays if stay["part"] == part]
        for part in (route_timeline.SERVES, route_timeline.SHARES)
    )
    assert served == [("sim/sim-base", 10_000), ("sim/sim-better", 10_000)]
    assert shared == [
        ("sim/sim-better", 100),
        ("sim/sim-better", 500),
        ("sim/sim-better", 2500),
        ("sim/sim-base", 100),
    ]
    assert stays[-1]["until"] == view.now
    assert all(stay["since"] < stay["until"] for stay in stays)
    app = shown(monkeypatch, lived_in.config, "routes", {"route": "quiet"})
    app.selectbox(key="route").select("quiet").run()
    assert "sim/sim-base has served this route from the start" in text(app)


@pytest.mark.req("F5")
def test_a_session_acts_with_a_key_as_long_as_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path)
    app = shown(monkeypatch, config, "overview")
    assert page_frame.ACTOR_KEY not in app.session_state
    assert 'href="/sign-in?next=' in text(app)
    ctx = page_frame.installation().context
    secret = page_frame.installation().secret
    key, secret_text = keys.create_key(
        ctx,
        SYSTEM,
        "carla",
        secret=secret,
        role=Role.APPROVER,
    )
    lasts = timedelta(hours=1)
    cookie = dashboard_sessions.open_with_key(
        ctx,
        secret_text,
        secret=secret,
        lasts=lasts,
    )[1]

    monkeypatch.setattr(current_user, "session_cookie", lambda: cookie)
    app.run()
    assert "<b>carla</b> · approver" in text(app)
    actor = app.session_state[page_frame.ACTOR_KEY]
    assert (actor.name, actor.key) == ("carla", key.id)
    for hidden in (secret_text, cookie):
        assert hidden not in repr(app.session_state)
        assert hidden not in text(app)

    keys.revoke_key(ctx, SYSTEM, key.id)
    app.run()
    assert "this management key is unknown or revoked" in text(app)
    assert page_frame.ACTOR_KEY not in app.session_state


@pytest.mark.req("F5")
def test_a_sign_out_ends_the_key_and_the_single_sign_on_and_keeps_the_way_to_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(with_sign_on(tmp_path)))
    ctx = page_frame.installation().context
    signed_in_as(monkeypatch, "carla", Role.APPROVER)
    app = AppTest.from_file(str(MAIN), default_timeout=120)
    app.user = {
        "is_logged_in": True,
        "iss": "https://l.example",
        "sub": "u-dora",
        "email": "dora@example.com",
        "email_verified": True,
        "groups": ["staff"],
        "iat": now().timestamp(),
    }
    app.run()
    assert "<b>carla</b> · approver" in text(app)

    next(button for button in app.button if button.label == "Sign out").click().run()

    # A page drawn after the redirect would have dropped it.
    assert "Sign in</b> to Swapproof" not in text(app)
    assert app.user["is_logged_in"] is False
    with ctx.store.read() as tx:
        ended = [e.actor for e in AuditLog(tx).tail(50) if e.action == "dashboard.sign_out"]
    assert sorted(ended) == ["carla", "dora@example.com"]
    app.run()
    assert "Sign in</b> to Swapproof" in text(app)


def refreshed() -> None:
    import streamlit as st  # noqa: PLC0415 - AppTest runs this text alone

    from dashboard import current_user  # noqa: PLC0415

    if "began" in st.session_state:
        st.text("the whole page again")
        st.stop()
    st.session_state["began"] = True
    current_user.require_reader()
    st.text("figures")


@pytest.mark.req("F5")
def test_a_part_that_refreshes_itself_ends_with_the_sign_in_that_reading_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(with_sign_on(tmp_path)))
    ctx = page_frame.installation().context
    secret = page_frame.installation().secret
    link = dashboard_sessions.create_link(ctx, OPERATOR, secret=secret)[1]
    lasts = timedelta(hours=1)
    found, cookie = dashboard_sessions.open_link(
        ctx,
        link,
        secret=secret,
        lasts=lasts,
    )
    monkeypatch.setattr(current_user, "session_cookie", lambda: cookie)

    def shown_text() -> str:
        return AppTest.from_function(refreshed, default_timeout=120).run().text[0].value

    assert shown_text() == "figures"
    with monkeypatch.context() as away:
        away.setattr(sign_in_page, "resume", raise_unavailable)
        lost = AppTest.from_function(refreshed, default_timeout=120).run()
    assert not lost.text
    assert "sign-in does not work now" in text(lost)
    dashboard_sessions.end(ctx, found)
    assert shown_text() == "the whole page again"


def raise_unavailable(_cookie: str) -> ActorSession:
    raise StoreUnavailable("the database at db.internal does not answer")


def with_sign_on(home: Path) -> Path:
    config = configured(home)
    oidc = (
        "ui: {oidc: {issuer: 'https://l.example', client_id: swapproof, client_secret_env: S, "
        "public_url: 'https://s.example', roles: {staff: viewer}}}"
    )
    config.write_text(f"{config.read_text(encoding='utf-8')}\n{oidc}\n", encoding="utf-8")
    return config


def take_database_away(home: Path) -> None:
    database = home / "state" / "swapproof.db"
    database.rename(home / "kept.db")
    database.mkdir()


def leave_migrations_out(home: Path) -> None:
    with sqlite3.connect(home / "state" / "swapproof.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0001'")


FAULTS: Mapping[str, Callable[[Path], object]] = {
    "database away": take_database_away,
    "migrations behind": leave_migrations_out,
    "secret missing": lambda home: (home / "state" / "secret.key").unlink(),
    "file broken": lambda home: (home / "swapproof.yaml").write_text("ui: [", encoding="utf-8"),
    "section dropped": configured,
}


@pytest.mark.req("F5")
@pytest.mark.parametrize("fault", FAULTS)
def test_where_people_sign_in_nothing_that_fails_shows_a_page_to_a_stranger(
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = with_sign_on(tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    page_frame.serve_with(page_frame.sign_on())
    forget()
    FAULTS[fault](tmp_path)

    app = shown(monkeypatch, config, "routes")

    seen = text(app)
    assert not app.code
    assert "The dashboard cannot be opened now" in seen or "Sign in</b> to Swapproof" in seen
    for secret in (
        str(tmp_path),
        "swapproof.db",
        "secret.key",
        "Routes",
        "alembic",
    ):
        assert secret not in seen


@pytest.mark.req("F5")
def test_who_may_only_read_finds_every_button_shut_and_why_and_copies_commands_that_run(
    lived_in: Lived,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = copied(lived_in, tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    signed_in_as(monkeypatch, "vera", Role.VIEWER)

    open_buttons = set()
    silent = set()
    commands = set()
    app = shown(monkeypatch, config, "overview")
    for page in pages():
        app.switch_page(f"views/{page}.py").run()
        acts = [button for button in app.button if button.label not in ANYBODYS]
        open_buttons |= {(page, button.label) for button in acts if not button.disabled}
        if acts and not re.search(SHUT, text(app)):
            silent.add(page)
        commands |= {code.value for code in app.code}
    assert (open_buttons, silent) == (set(), set())
    assert len(commands) >= len(PAGES)
    for command in sorted(commands):
        # As in a process of its own: another test may have set up the logs of this one.
        structlog.reset_defaults()
        program, *words = shlex.split(command)
        done = CliRunner().invoke(command_line, words, prog_name=program)
        assert (program, done.exit_code, bool(done.output)) == (
            "swapproof",
            0,
            True,
        ), command
