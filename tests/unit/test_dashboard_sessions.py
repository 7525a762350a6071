import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard import page_frame
from harness.agents import switches
from harness.agents.message import MessageToolCall
from harness.agents.records import Sessions, SwitchRequests
from harness.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.app.installation import CONFIG_VARIABLE
from harness.frame.people.access import OPERATOR, Role
from harness.operations import captures
from harness.routing.agent import AgentSession, literal_choice
from tests.support.browser.agent_sessions import (
    SCOUT,
    UNPRICED,
    configure,
    converse,
    create_agent,
    open_session,
)
from tests.support.browser.dashboard_data import XSS
from tests.unit.test_dashboard_page_states import (
    dialog,
    forget,
    shown,
    signed_in_as,
    text,
)
from tests.unit.test_dashboard_setup_pages import act_as

SAGE = "south/sage-1"

pytestmark = [pytest.mark.req("C4", "C5"), pytest.mark.slow]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentSession]:
    """An open session of the agent `concierge`, in an installation of its own."""
    forget()
    monkeypatch.setenv(CONFIG_VARIABLE, str(configure(tmp_path)))
    yield open_session(page_frame.context(), create_agent(page_frame.context()))
    forget()


def page_text(
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    **query: str,
) -> str:
    return text(shown(monkeypatch, home / "swapproof.yaml", "sessions", query))


def test_what_was_said_is_read_with_a_key_alone_and_an_unknown_price_is_not_nothing(
    session: AgentSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ctx = page_frame.context()
    call = MessageToolCall("c_1", "find", '{"order": "A-1815"}')
    converse(ctx, session.id, "Where is order A-1815?", "", calls=[call])
    converse(ctx, session.id, '{"state": "delivered"}', XSS, response_to="c_1")
    converse(
        ctx,
        session.id,
        "And now?",
        "No idea.",
        target=UNPRICED,
        cost_usd=None,
    )

    said = page_text(monkeypatch, tmp_path, session=session.id)
    assert SCOUT in said
    assert "A-1815" not in said
    assert "The transcript is private" in said
    assert "known cost $0.02" in said

    signed_in_as(monkeypatch, "vera", Role.VIEWER)
    app = shown(
        monkeypatch,
        tmp_path / "swapproof.yaml",
        "sessions",
        {"session": session.id},
    )
    said = text(app)
    assert said.count('<section class="message') == 6
    for words in (
        "Where is order A-1815?",
        '→ find {"order": "A-1815"}',
        "<img src=x",
    ):
        assert words in said
    assert not any("<img" in str(part.proto.body) for part in app.get("html"))
    assert "price unknown" in said[said.index(f"<b>{UNPRICED}") :]


def test_a_long_transcript_is_read_a_page_at_a_time(
    session: AgentSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(50):
        converse(
            page_frame.context(),
            session.id,
            f"question {number}.",
            f"answer {number}.",
        )
    signed_in_as(monkeypatch, "vito", Role.VIEWER)

    newest = page_text(monkeypatch, tmp_path, session=session.id)
    earlier = page_text(
        monkeypatch,
        tmp_path,
        session=session.id,
        behind="40",
    )

    assert "Messages 71 to 100 of 100." in newest
    assert "answer 49." in newest
    assert "Messages 41 to 70 of 100." in earlier
    assert "question 20." in earlier
    assert "answer 49." not in earlier


def test_a_purged_session_is_said_to_be_gone(
    session: AgentSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = page_frame.installation().secret
    captures.delete_user(page_frame.context(), OPERATOR, "ada", "asked", secret=secret)

    gone = page_text(monkeypatch, tmp_path, session=session.id)

    assert "There is no such session" in gone
    assert "It may be deleted" in gone


def ask(session: AgentSession) -> ModelSwitchRequest:
    models = (literal_choice("sage-1", SAGE),)
    reason = f"it writes better {XSS}"
    return switches.request_switch(page_frame.context(), session.id, models, reason)


@pytest.mark.parametrize(
    ("verb", "state", "model"),
    [
        ("Approve", SwitchState.APPROVED, SAGE),
        ("Reject", SwitchState.REJECTED, "chat"),
    ],
)
def test_an_approver_alone_decides_on_a_switch_and_sees_what_it_means(
    session: AgentSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    verb: str,
    state: SwitchState,
    model: str,
) -> None:
    request = ask(session)
    file = tmp_path / "swapproof.yaml"
    for name, role, why in (
        ("", Role.VIEWER, "Sign in first, at the top of this page"),
        (
            "volker",
            Role.VIEWER,
            "volker has the role viewer; this needs approver",
        ),
        ("clara", Role.APPROVER, ""),
    ):
        if name:
            act_as(monkeypatch, name, role)
        page = shown(monkeypatch, file, "sessions")
        assert why in text(page)
        assert page.button(key=f"{verb}-{request.id}").disabled is bool(why)
        assert "waits for approval: <b>concierge</b>" in text(page)
        assert f"concierge wants to switch to {SAGE}. Approve?" in text(page)
        assert "it writes better" not in text(page)

    app = dialog(
        "from dashboard.views import sessions",
        "from harness.agents.records import SwitchRequests",
        f"with ctx.store.read() as tx: found = SwitchRequests(tx).get('{request.id}')",
        f"sessions.decide('{verb}', kept('asked', found), 'concierge')",
    )
    said = text(app)
    prices = ("$10.00 in and $40.00 out", "$2.00 in and $8.00 out")
    for fact in (
        SAGE,
        SCOUT,
        *prices,
        "not measured",
        "it writes better <img",
        "Time left",
    ):
        assert fact in said, fact
    app.text_input(key=f"{verb}-why-{request.id}").set_value("too dear").run()
    app.button(key=f"{verb}-now-{request.id}").click().run()

    with page_frame.context().store.read() as tx:
        decided = SwitchRequests(tx).get(request.id)
        assert Sessions(tx).get(session.id).model.text == model
    assert (decided.state, decided.decision_reason) == (state, "too dear")
    after = page_text(monkeypatch, tmp_path, session=session.id)
    assert re.search(rf"{state.value}.*?, by clara", after)
