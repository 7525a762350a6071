import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dashboard import current_user, page_frame
from harness.app.installation import load_settings
from harness.evals.month_spending import (
    PurposeSpending,
    SpendingPurpose,
    month_of,
)
from harness.evals.records import Spending
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.people.access import Actor, Role
from harness.gate.online.observation import TrafficMinute
from harness.interfaces.cli.operations import configuration
from harness.operations import queries
from harness.providers.registry import targets
from harness.providers.target import Provider, Target
from harness.routing.control import routes
from harness.routing.records.failovers import Failovers
from harness.routing.records.observations import Observations
from harness.routing.reliability.failover import Failover, hash_user
from harness.routing.route_settings import RouteSettings
from tests.support.browser.dashboard_data import ANA, XSS, configured, opened
from tests.support.control.manual_clock import ManualClock
from tests.unit.test_dashboard_page_states import (
    forget,
    now,
    pages,
    shown,
    text,
)

ROUTES = 200
VIEWER = Actor("vera", Role.VIEWER, "pr_vera", "key_vera")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def signed_in_as_admin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(current_user, "signed_in", lambda: ANA)
    monkeypatch.setattr(current_user, "may_read_content", lambda: True)
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 routes; the last request of one came 20 minutes ago; an alert nobody was told of."""
    config = configured(tmp_path_factory.mktemp("busy"))
    sinks = (
        "alerts: {sinks: [{name: oncall, webhook: 'https://h.example/t0ken', secret_env: S}]}"
    )
    config.write_text(f"home: state\n{sinks}\n", encoding="utf-8")
    then = now() - timedelta(minutes=20)
    with opened(config, ManualClock(then)) as installation:
        ctx = installation.context
        targets.put_provider(ctx, ANA, Provider("sim", "sim", "http://127.0.0.1:9/v1"))
        for number in range(ROUTES):
            routes.create_route(
                ctx,
                ANA,
                f"team-{number:03}",
                "sim/base",
                settings=RouteSettings(),
            )
        served = Target("sim", "base").id
        minute = then.replace(second=0, microsecond=0)
        traffic = [
            TrafficMinute(
                f"team-{number:03}",
                minute,
                "w1",
                "incumbent",
                served,
                1,
                requests=50,
                failed=number == 7,
                charged=3,
                streams=0,
                input_tokens=9,
                output_tokens=9,
                cost_usd=0.25,
            )
            for number in range(ROUTES)
        ]
        left = Failover(
            worker="w1",
            number=1,
            at=then,
            request="req_1",
            route="team-007",
            arm="incumbent",
            target="sim/base",
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
            user_hash=hash_user("user:alice", installation.secret),
            next_target=None,
        )
        with ctx.store.write() as tx:
            Observations(tx).append([], traffic)
            Failovers(tx).append([left])
            at = ctx.clock.now()
            Spending(tx).set_cap(1.5, at)
            spent = PurposeSpending(SpendingPurpose.EVALS, 1.5, calls=3)
            # The pages may be drawn in the next month.
            for month in {month_of(at), month_of(at + timedelta(days=1))}:
                Spending(tx).add(month, spent)
            alerts.raise_alert(
                tx,
                AlertKind.OUR_KEY,
                "x",
                subject="provider sim",
                title=XSS,
                text="=1+1",
            )
    return config


def test_each_page_answers_in_its_first_line_says_what_is_stale_and_stays_short(
    busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps = {page: shown(monkeypatch, busy, page) for page in pages()}
    said = {page: text(app) for page, app in apps.items()}
    bodies = [str(part.proto.body) for app in apps.values() for part in app.get("html")]
    assert not any("<script>" in body for body in bodies)
    for page, words in said.items():
        assert "<h1>" in words, page
        assert 'role="alert"' not in words, page
        assert words.count("<tr>") <= 77, page

    assert "<b>1 of 200 routes</b> gave callers errors in the last 24 hours" in said["traffic"]
    assert "1 of 10,000 requests (0.01 %)" in said["traffic"]
    assert "No request has been recorded since" in said["traffic"]
    assert "No message was sent about 1 open alert" in said["overview"]
    assert "$1.50 spent since" in said["keys"]
    assert "of $1.50: evals, judges" in said["keys"]
    assert "The audit log is <b>intact</b>" in said["audit"]
    assert "200 routes: " in said["routes"].partition("<h2>Policy</h2>")[2]
    assert not any("t0ken" in page for page in said.values())


def test_200_routes_are_few_lines_and_a_search(
    busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = shown(monkeypatch, busy, "traffic")
    assert text(app).count('<td data-head="Requests">') == 25
    assert "25 of 200 routes" in text(app)

    app.text_input(key="find").set_value("TEAM-19").run()
    assert text(app).count('<td data-head="Requests">') == 10
    assert "and 192 more" in text(shown(monkeypatch, busy, "routes"))

    app = shown(monkeypatch, busy, "overview")
    assert text(app).count('<td data-head="Route">') == 50
    assert "Search above to see the 150 others." in text(app)
    app.text_input(key="find").set_value("TEAM-013").run()
    assert re.findall(r'<td data-head="Route"><div>(.*?)</div></td>', text(app)) == [
        '<a href="routes?route=team-013" target="_self"><b>team-013</b></a>'
    ]
    app.text_input(key="find").set_value("nobody").run()
    assert "name, description or model contains this text" in text(app)


@pytest.mark.req("B5")
def test_failovers_of_one_caller_are_found_by_the_id(
    busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = shown(monkeypatch, busy, "traffic")
    assert "the provider is overloaded" in text(app)
    assert '<td data-head="Shape"><div>chat, 80 bytes, 0 tools</div></td>' in text(app)
    assert '<td data-head="Answered"><div>10,000</div></td>' in text(app)

    app.text_input(key="user").set_value("alice").run()
    assert "req_1" in text(app)
    assert "--user alice" in app.code[0].value
    app.text_input(key="user").set_value("bob").run()
    assert "No failover of bob" in text(app)


@pytest.mark.req("F5")
def test_the_audit_log_is_filtered_and_exported(
    busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = shown(monkeypatch, busy, "audit")
    app.text_input(key="subject").set_value("TEAM-007").run()
    with page_frame.context().store.listings() as stored:
        total = stored.events().total
    assert f"<b>1 of {total} events match</b>" in text(app)
    assert '<a href="routes?route=team-007" target="_self">route team-007</a>' in text(app)
    assert "--subject TEAM-007" in app.code[0].value
    app.text_input(key="actor").set_value("nobody").run()
    assert "No event matches all fields" in text(app)

    events = queries.read_audit_events(page_frame.context())
    assert sum(1 for _ in events) == total


def test_no_secret_of_the_file_stands_among_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "swapproof.yaml"
    config.write_text(
        "database_url: 'postgresql+psycopg://h/db?user=u&password=S3CRETa'\n"
        "alerts: {sinks: [{url: 'pbul://o.S3CRETb'}, {url: 'slack://S3CRETc/B/C'}]}\n"
        "providers: {p: {kind: custom, api_base: 'http://127.0.0.1:9/v1', extra_body: {\n"
        "  accessToken: S3CRETd, note: sk-proj-S3CRETe0123456789abcdefghijk}}}\n",
        encoding="utf-8",
    )
    settings = load_settings(config)
    shown = configuration.list_settings(settings)

    assert [setting for setting in shown if "s3cret" in setting.value.lower()] == []
    values = {setting.name: setting.value for setting in shown}
    assert values["database_url"] == "postgresql+psycopg://h/db?user=u&password=***"
    assert values["alerts.sinks.0.url"] == "pbul://***"
