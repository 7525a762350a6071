import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Button

from dashboard import current_user, dialog_forms, page_frame
from dashboard.views import canary as canary_page
from dashboard.views import (
    canary_text,
    decisions,
    route_holds,
    route_timeline,
    suite_dialogs,
)
from evals.suites.configured_suites import ConfiguredSuites
from harness.app.installation import CONFIG_VARIABLE
from harness.canary import shadows
from harness.evals.drift_watches import list_drift_status
from harness.frame.errors import SignatureInvalid
from harness.frame.people.access import Role
from harness.frame.signing.audit_log import AuditLog
from harness.operations.records import Captures
from harness.proposals import break_glass, submission
from harness.providers.force import SwitchSource, parse_force
from harness.routing.capture import capture_expiry
from harness.routing.control import freezes, routes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.proposal import ProposalPhase
from harness.routing.records.interventions import Switches
from harness.routing.records.proposals import Proposals
from tests.contract.test_store_observations import ONE as CAPTURED
from tests.support.browser.dashboard_data import ANA, BEN, Lived, lived_copy
from tests.support.control.bare_installation import read_history
from tests.support.site.processes import free_port
from tests.unit.test_dashboard_page_states import (
    dialog,
    fill,
    forget,
    now,
    shown,
    signed_in_as,
    text,
)

REVIEW = "*decisions.load('{%s}')"
# Of the dialogs, which all open by `dialog_forms.dialog`, with what a page gives them.
DIALOGS = (
    ("decisions.approve", REVIEW % "awaiting"),
    ("operation_dialog(CANCEL_PROPOSAL)", "queries.find_proposal(ctx, '{evaluating}')"),
    ("route_holds.add", "'faq'"),
    ("keys.create_client_key", ""),
    ("routes.roll_back", "route_timeline.load_route(ctx, 'faq')"),
    ("route_holds.throw", "'faq'"),
)
SCRIPT = """
from datetime import datetime
if "given" not in st.session_state:
    st.session_state["given"] = (ARGUMENTS)
    st.session_state["switch-force-faq"] = "provider:sim"
    st.session_state["freeze-until-faq"] = datetime(2099, 1, 1)
DIALOG(*st.session_state["given"])
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived_copy(tmp_path_factory, now())


@pytest.fixture
def house(
    template: Lived,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lived]:
    """An installation of the test's own, in which ben acts."""
    forget()
    home = shutil.copytree(template.config.parent, tmp_path / "home")
    config = home / template.config.name
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setattr(current_user, "signed_in", lambda: BEN)
    signed_in_as(monkeypatch, "ben", Role.ADMIN)
    yield Lived(config, template.proposals)
    forget()


def test_a_dialog_says_in_words_that_the_database_went_away_while_it_was_open(
    house: Lived,
) -> None:
    opened = {}
    for name, arguments in DIALOGS:
        given = f"{arguments.format(**house.proposals)}," if arguments else ""
        script = SCRIPT.replace("ARGUMENTS", given).replace("DIALOG", name)
        opened[name] = dialog(script)
        assert not opened[name].exception, name
        assert dialog_forms.CANNOT_OPEN not in text(opened[name]), name

        _fill_in(opened[name])

    page_frame.installation().close()
    database = house.config.parent / "state" / "swapproof.db"
    database.rename(house.config.parent / "kept.db")
    database.mkdir()
    for name, app in opened.items():
        assert "the database" in _press(app), name


def _fill_in(app: AppTest) -> None:
    choices = [choice for choice in app.selectbox if choice.value is None and choice.options]
    for choice in choices:
        choice.select_index(0)
    if choices:
        app.run()
    for field in app.text_input:
        wants_name = str(field.key).startswith("sure-")
        field.set_value(field.label.split()[1] if wants_name else "why")
    if app.text_input:
        app.run()


def _press(app: AppTest) -> str:
    for button in app.button:
        if not button.disabled:
            button.click()
    assert not app.run().exception
    return text(app)


@pytest.mark.req("G1")
def test_where_only_is_observed_what_sends_users_to_a_candidate_is_off_and_emergencies_work(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    with house.config.open("a", encoding="utf-8") as file:
        file.write("control: {observe_only: true}\n")
    forget()
    pages = {
        page: shown(monkeypatch, house.config, page, query)
        for page, query in {
            "overview": {},
            "proposals": {"state": "open"},
            "compare": {"id": house.proposals["awaiting"]},
            "canary": {"route": "support-chat"},
            "routes": {"route": "support-chat"},
        }.items()
    }

    for page, app in pages.items():
        assert "<b>All routes are frozen.</b> this installation only observes" in text(app), (
            page
        )
    for page in ("proposals", "compare"):
        assert _reads(pages[page]) >= {("Approve", True), ("Reject", True)}
    assert "Once approved it waits: route" in text(pages["compare"])
    assert _reads(pages["canary"]) >= {
        ("Abort the canary", True),
        ("Pause", True),
        ("Next step", False),
        ("Promote now", False),
    }
    assert canary_page.FROZEN in text(pages["canary"])
    assert ("Kill switch …", True) in _reads(pages["routes"])


@pytest.mark.req("A7", "F5")
def test_a_swap_is_proposed_with_its_price_shown_and_a_busy_route_says_what_is_open(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    def form(route: str) -> AppTest:
        query = {"route": route, "candidate": "sim/sim-better"}
        return shown(monkeypatch, house.config, "proposals", query)

    busy = form("drafts")
    assert ("Propose", False) in _reads(busy)
    why = f"Route drafts has an open proposal, {house.proposals['evaluating']}"
    assert why in text(busy)

    app = form("returns")
    assert "For both models: at most about $" in text(app)
    app.text_input(key="wish-reason").set_value("it is cheaper").run()
    assert "Proposed as ben." in text(app)
    _button(app, "Propose").click().run()
    assert "ben proposed sim/sim-better for route returns" in text(app)
    ctx = page_frame.context()
    [made] = submission.list_proposals(ctx, route="returns", open_only=True)
    assert (made.proposer, made.reason) == ("ben", "it is cheaper")

    monkeypatch.setattr(current_user, "signed_in", lambda: ANA)
    page = shown(
        monkeypatch,
        house.config,
        "compare",
        {"id": house.proposals["awaiting"]},
    )
    assert ("Approve", False) in _reads(page)
    assert "ana proposed this, so another person must approve it." in text(page)


@pytest.mark.req("D6", "F2")
def test_slices_are_chosen_beside_the_candidate_and_shown_with_their_route(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = {"team = billing": "x-team: billing"}
    monkeypatch.setattr(ConfiguredSuites, "split", lambda _self, _suite: split)
    query = {"route": "returns", "candidate": "sim/sim-better"}
    app = shown(monkeypatch, house.config, "proposals", query)

    slices = app.multiselect(key="wish-slices-returns")
    assert slices.options == ["team = billing"]
    slices.set_value(["team = billing"]).run()

    # The page checks the slices as a dry run does: the shipped suite has no field `team`.
    assert "No forecast is possible: slice" in text(app)


@pytest.mark.req("C4", "F2")
def test_an_approval_repeats_verdict_cost_and_risk_and_needs_a_reason(house: Lived) -> None:
    id_ = house.proposals["awaiting"]
    app = dialog(f"decisions.approve(*decisions.load('{id_}'))")
    for repeated in (
        "Route <b>mail-triage</b>: <b>1 %</b> of its traffic goes to <b>sim/sim-better</b>",
        "the rest stays with <b>sim/sim-base</b>",
        "Better on Support-ticket routing.",
        "No drawback: it is not slower",
        "This is the 1st candidate on this route in 90 days",
    ):
        assert repeated in text(app), repeated
    assert app.button(key=f"approval-now-{id_}").disabled
    assert dialog_forms.REASON_MISSING in text(app)
    fill(
        app,
        {f"approval-why-{id_}": "it is cheaper, too"},
        f"approval-now-{id_}",
    )
    found = submission.get_proposal(page_frame.context(), id_)
    assert found.approver == "ben"


@pytest.mark.req("F3")
def test_a_canary_is_paused_promoted_by_hand_and_its_bake_finished(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    for signal, effect, then in (
        ("pause", "until a person resumes it", "is paused at 5 %"),
        (
            "promote",
            "From 5 % to 100 % for sim/sim-better",
            "is promoted and baking",
        ),
        ("finish", "Swapproof no longer detects harm", "was promoted"),
    ):
        status = canary_text.load_canary(page_frame.context(), "support-chat").status
        assert status is not None
        about = f"{status.rollout.id}-{status.rollout.version}"
        app = dialog(
            "from dashboard.views import canary",
            "from harness.gate.online.rollout import RolloutSignal",
            "status = kept('status', canary_text.load_canary(ctx, 'support-chat').status)",
            f"if '{signal}-acted-{about}' not in st.session_state:",
            f"    canary.ask(status, RolloutSignal('{signal}'))",
        )
        assert effect in text(app)
        assert app.button(key=f"{signal}-now-{about}").disabled
        fill(
            app,
            {f"{signal}-why-{about}": "a demo at noon"},
            f"{signal}-now-{about}",
        )
        page = shown(monkeypatch, house.config, "canary", {"route": "support-chat"})
        assert f"<b>sim/sim-better</b> {then}" in text(page)
    proposal = submission.get_proposal(page_frame.context(), house.proposals["canary"])
    assert proposal.phase is ProposalPhase.PROMOTED
    assert routes.load_table(page_frame.context()).routes["support-chat"].experiment is None


@pytest.mark.req("B11", "F5")
@pytest.mark.usefixtures("house")
def test_a_route_goes_back_by_hand_and_its_kill_switch_is_lifted() -> None:
    ctx = page_frame.context()
    app = dialog("routes.roll_back(kept('view', route_timeline.load_route(ctx, 'faq')))")
    assert (
        "100 % of the traffic goes from <b>sim/sim-better</b> to <b>sim/sim-base</b>"
        in text(app)
    )
    view = route_timeline.load_route(ctx, "faq")
    field = next(str(field.key) for field in app.text_input)
    fill(app, {field: "users complain"}, field.replace("why", "now"))
    latest = read_history(ctx, "faq")[0]
    assert (latest.actor, latest.reason) == ("ben", "users complain")
    assert route_timeline.load_route(ctx, "faq").route.incumbent != view.route.incumbent

    request = SwitchRequest(parse_force("provider:sim"), "a vendor is down", route="faq")
    switch = freezes.set_switch(ctx, BEN, request, source=SwitchSource.CLI)
    app = dialog(
        "from harness.routing.control import freezes",
        "(live,) = kept('live', freezes.list_live_switches(ctx))",
        "operation_dialog(LIFT_SWITCH)(live)",
    )
    assert "a vendor is down" in text(app)
    fill(app, {f"lift-switch-why-{switch.id}": "it is back"}, f"lift-switch-now-{switch.id}")
    assert not freezes.list_live_switches(ctx)


@pytest.mark.req("G2")
def test_an_approval_waits_for_the_change_request_that_its_policy_asks_for(
    house: Lived,
) -> None:
    id_ = house.proposals["awaiting"]
    app = dialog(
        "from dataclasses import replace",
        "from harness.gate.policy import ChangeReferenceRule",
        f"view, found = decisions.load('{id_}')",
        "proposal = view.comparison.proposal",
        "policy = replace(proposal.policy, change_reference=ChangeReferenceRule.REQUIRED)",
        "asking = replace(view.comparison, proposal=replace(proposal, policy=policy))",
        "decisions.approve(replace(view, comparison=asking), found)",
    )
    fill(app, {f"approval-why-{id_}": "it fits"})
    assert decisions.CHANGE_MISSING in text(app)
    assert app.button(key=f"approval-now-{id_}").disabled
    fill(app, {f"approval-change-{id_}": "CHG-20417"}, f"approval-now-{id_}")
    with page_frame.context().store.read() as tx:
        assert Proposals(tx).get(id_).change_reference == "CHG-20417"


@pytest.mark.req("G2")
def test_a_freeze_is_set_and_ended_with_a_reason_and_shown_where_it_holds_something_back(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = page_frame.context()
    app = dialog("route_holds.add('support-chat')")
    assert "Held back: <b>sim/sim-better on support-chat</b>" in text(app)
    assert app.button(key="freeze-now-support-chat").disabled
    until = (now() + timedelta(days=3)).replace(tzinfo=None, microsecond=0)
    given = {
        "freeze-until-support-chat": until,
        "freeze-why-support-chat": "Christmas.",
    }
    fill(app, given, "freeze-now-support-chat")

    (record,) = freezes.list_liftable_switches(ctx, "support-chat")
    assert (record.route, record.actor) == ("support-chat", "ben")
    pages = {
        (page, *query.values()): shown(monkeypatch, house.config, page, query)
        for page, query in (
            ("overview", {}),
            ("keys", {}),
            ("canary", {"route": "support-chat"}),
            ("routes", {"route": "support-chat"}),
            ("compare", {"id": house.proposals["canary"]}),
            ("compare", {"id": house.proposals["awaiting"]}),
        )
    }
    told = {key for key, page in pages.items() if "(ben). No canary opens" in text(page)}
    assert pages.keys() - told == {
        ("keys",),
        ("compare", house.proposals["awaiting"]),
    }
    frozen = pages["canary", "support-chat"]
    assert _reads(frozen) >= {
        ("Abort the canary", True),
        ("Promote now", False),
    }
    assert canary_page.FROZEN in text(frozen)
    assert ("Lift the freeze of ben …", True) in _reads(pages["routes", "support-chat"])

    with monkeypatch.context() as tampered:
        tampered.setattr(Switches, "freezes", _forged)
        said = text(shown(monkeypatch, house.config, "canary"))
        assert "<b>All routes are frozen.</b> the stored freezes cannot be trusted" in said
    app = dialog(
        "from harness.routing.control import freezes",
        "found = kept('found', freezes.list_liftable_switches(ctx, 'support-chat'))",
        "operation_dialog(LIFT_SWITCH)(found[0])",
    )
    fill(app, {f"lift-switch-why-{record.id}": "over"}, f"lift-switch-now-{record.id}")
    assert not freezes.list_liftable_switches(ctx, "support-chat")


def _forged(*_: object) -> None:
    raise SignatureInvalid("a row is not as it was signed")


@pytest.mark.req("G2")
def test_a_break_glass_is_off_beside_a_canary_waits_for_a_second_person_and_hides_no_page(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"route": "support-chat"}
    busy = shown(monkeypatch, house.config, "routes", query)
    assert ("Break-glass …", False) in _reads(busy)
    assert route_holds.CANARY_OBSTACLE in text(busy)

    app = dialog(
        "kept('glass-target-quiet', 'sim/sim-better')",
        "route_holds.propose('quiet')",
    )
    assert "instead of <b>sim/sim-base</b>" in text(app)
    assert app.button(key="glass-now-quiet").disabled
    fill(
        app,
        {"glass-why-quiet": "it is switched off tonight"},
        "glass-now-quiet",
    )
    (asked,) = break_glass.list_open_break_glasses(page_frame.context())
    assert (asked.route, asked.proposer, asked.confirmed) == (
        "quiet",
        "ben",
        False,
    )
    overview = text(shown(monkeypatch, house.config, "overview"))
    assert "; a break-glass waits for a second person</h1>" in overview
    assert "<b>Break-glass requested for route quiet.</b> sim/sim-better is to" in overview

    app = dialog(
        "from harness.proposals import break_glass",
        "record = kept('record', next(iter(break_glass.list_open_break_glasses(ctx)), None))",
        "operation_openers(BREAK_GLASSES, record)[1].open()",
    )
    assert "<b>sim/sim-base</b> continues to serve route <b>quiet</b>." in text(app)
    fill(
        app,
        {f"end-break-glass-why-{asked.id}": "it came back"},
        f"end-break-glass-now-{asked.id}",
    )
    assert not break_glass.list_open_break_glasses(page_frame.context())

    for name in ("list_open_break_glasses", "list_notices"):
        monkeypatch.setattr(break_glass, name, _forged)
    app = shown(monkeypatch, house.config, "routes", query)
    assert "Swapproof cannot tell which routes serve without proof." in text(app)
    assert ("Kill switch …", True) in _reads(app)


@pytest.mark.req("F8")
def test_a_shadow_without_a_proposal_is_started_by_an_approver_and_stopped(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = dialog("shadows.start(['quiet'])")
    fill(
        app,
        {
            "shadow-route": "quiet",
            "shadow-candidate-quiet": "sim/sim-better",
        },
    )
    assert "All of them still get the answers of <b>sim/sim-base</b>" in text(app)
    assert app.button(key="shadow-now").disabled
    fill(app, {"shadow-share_bps": 12.5, "shadow-why": "before we propose it"})
    with monkeypatch.context() as lowered:
        signed_in_as(lowered, "pia", Role.PROPOSER)
        assert "Not done" in text(app.button(key="shadow-now").click().run())
    fill(app, {}, "shadow-now")

    page = shown(monkeypatch, house.config, "shadows")
    for words in (
        "<b>1 shadow</b> runs",
        "12.5 % of the callers",
        "ben: before we propose it",
    ):
        assert words in text(page), words
    assert ("Stop the shadow of quiet …", True) in _reads(page)
    (running,) = shadows.list_running(page_frame.context())
    assert running.shadow.limits.share_bps == 1_250
    app = _opened(
        "operation_openers(SHADOWS, kept('one', list_running(ctx))[0].shadow)[0].open()"
    )
    id_ = running.shadow.id
    fill(
        app,
        {f"stop-shadow-why-{id_}": "seen enough"},
        f"stop-shadow-now-{id_}",
    )
    assert "ended by ben: seen enough" in text(shown(monkeypatch, house.config, "shadows"))


@pytest.mark.req("F9", "F5")
def test_captured_requests_are_read_by_an_approver_alone_and_the_audit_log_says_who(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {
        "messages": [{"role": "user", "content": "Where is it?"}],
        "answer": {"content": "At the depot."},
    }
    ctx = page_frame.context()
    at = ctx.clock.now()
    kept = replace(
        CAPTURED,
        at=at,
        expires_at=capture_expiry(at, 9),
        content=content,
    )
    with ctx.store.write() as tx:
        Captures(tx).store(kept, most_per_day=9)
    page = shown(monkeypatch, house.config, "suites")
    assert "1 request of callers, redacted" in text(page)
    assert "At the depot." not in text(page)
    app = _opened("suites.label_captures()")
    with monkeypatch.context() as lowered:
        signed_in_as(lowered, "pia", Role.PROPOSER)
        assert "Not done" in text(app.button(key="read-captures-now").click().run())
    fill(app, {}, "read-captures-now")
    (_, [line]) = app.session_state[suite_dialogs.READ_CAPTURES]
    assert line["answer"]["content"] == "At the depot."
    with ctx.store.read() as tx:
        (read,) = [e for e in AuditLog(tx).tail(50) if e.action == "capture.export"]
    assert read.actor == "ben"


@pytest.mark.req("F7")
def test_a_route_is_checked_for_drift_and_its_model_accepted_as_it_answers_now(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    with house.config.open("a", encoding="utf-8") as file:
        file.write("suites: {tickets: {drift: {items: 60}}}\n")
        file.write(f"control: {{port: {free_port()}}}\n")  # where no other one answers
    forget()
    ctx = page_frame.context()
    page = shown(monkeypatch, house.config, "routes", {"route": "faq"})
    assert {
        ("Check for drift now …", True),
        ("Accept how it answers now …", True),
    } <= (_reads(page))
    given = "*kept('given', ('faq', list_drift_status(ctx, route='faq')))"
    asked = _opened(f"route_holds.run({given})")
    assert "no control process answers at" in text(asked)
    fill(asked, {}, "drift-run-now-faq")
    (status,) = list_drift_status(ctx, route="faq")
    assert status.running is not None
    assert status.baseline is not None

    (run, accept) = route_holds.drift_openers("faq", [replace(status, state="drifted")])
    assert (run.missing, accept.missing) == (route_holds.DRIFT_OBSTACLE, "")
    app = _opened(f"route_holds.accept({given})")
    assert app.button(key="drift-now-faq").disabled
    app.text_input(key="drift-why-faq").set_value("the new version is fine").run()
    with monkeypatch.context() as lowered:
        signed_in_as(lowered, "pia", Role.PROPOSER)
        assert "Not done" in text(app.button(key="drift-now-faq").click().run())
    fill(app, {}, "drift-now-faq")
    (after,) = list_drift_status(ctx, route="faq")
    assert after.baseline is not None
    assert after.baseline.watch != status.baseline.watch


def _opened(words: str) -> AppTest:
    """Opens a dialog by itself: AppTest closes those that a page's button opened."""
    return dialog(
        "from harness.evals.drift_watches import list_drift_status",
        "from harness.canary.shadows import list_running",
        "from harness.canary.shadow_operations import SHADOWS",
        f"if 'done' not in st.session_state: {words}",
    )


def _button(app: AppTest, label: str) -> Button:
    return next(button for button in app.button if button.label == label)


def _reads(app: AppTest) -> set[tuple[str, bool]]:
    return {(button.label, not button.disabled) for button in app.button}
