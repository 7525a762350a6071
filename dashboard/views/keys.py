"""The Keys & spending page answers: does any client run out of its budget, who may act, and
what did Swapgate itself spend, and swaps save?
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialog_forms import REASON, Form, dialog, show_openers
from dashboard.dialogs.keys import kind, show_buttons, show_new_key
from dashboard.text import html, labels
from dashboard.text.html import escape, faint, meter, noted, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.context import Context
from harness.control.operations import dashboard_sessions, people
from harness.control.operations.dashboard_sessions import SignedInSession
from harness.control.operations.keys import KeySummary
from harness.control.operations.people import PersonView
from harness.control.operations.queries import list_keys
from harness.control.operations.spending import load_report
from harness.domain.formatting import format_spent_usd
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.principals import PrincipalKind
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.reliability.spend import SpendDecision, SpendLevel, check_budget

# With more client keys than these, the page has a search and shows no more at once.
MOST_ROWS: Final = 50
LEVELS: Final = {
    SpendLevel.FINE: Label("✓", "within", Tone.BETTER),
    SpendLevel.WARNING: Label("?", "nearly used up", Tone.UNDECIDED),
    SpendLevel.STOPPED: Label("✕", "used up", Tone.WORSE),
}


def show() -> None:
    with page_frame.loading("the keys"):
        ctx = page_frame.context()
        page, now = list_keys(ctx, PageRequest(MOST_LISTED)), ctx.clock.now()
    live = [key for key in page if key.revoked_at is None]
    gone = [key for key in page if key.revoked_at is not None]
    clients = [key for key in live if key.role is None]
    st.html(html.title(_headline(clients, now.date()), escape(labels.date_time(now))))
    page_frame.show_html(html.invalid(page.invalid))
    page_frame.show_done_message()
    show_new_key()
    show_buttons(live)
    if clients:
        _clients(clients, now.date())
    else:
        page_frame.show_empty(
            "Clients of the router send a key. This creates one:", "swapgate key create CLIENT"
        )
    _management([key for key in live if key.role is not None])
    _people()
    if gone:
        with st.expander(labels.plural(len(gone), "revoked key")):
            st.html(html.table(map(_revoked_cells, gone), stacked=True))
    page_frame.show_rest(page, "keys", "swapgate key list")
    _spending()
    page_frame.copy_as_cli(["key", "list"], ["spending"])


def _decide(key: KeySummary, today: date) -> SpendDecision | None:
    if key.limits is None or not key.limits.budgeted:
        return None
    return check_budget(key.limits.budget, key.spent, today)


def _headline(clients: Sequence[KeySummary], today: date) -> str:
    if not clients:
        return "No client has a key yet"
    decided = {key.name: _decide(key, today) for key in clients}
    known = {name: decision.level for name, decision in decided.items() if decision is not None}
    for level, words in (
        (SpendLevel.STOPPED, "used up a budget: requests are refused"),
        (SpendLevel.WARNING, "nearly used up a budget"),
    ):
        if names := [name for name, reached in known.items() if reached is level]:
            verb = "has" if len(names) == 1 else "have"
            return f"{strong(labels.few(names, 3))} {verb} {words}"
    count = labels.plural(len(clients), "client key")
    if not known:
        return f"{count}, none with a budget"
    if len(known) == len(clients):
        return f"{count}, all within budget"
    return f"{count}; {len(known)} with a budget, all within it"


def _clients(clients: Sequence[KeySummary], today: date) -> None:
    note = "A request's cost counts as soon as it is recorded, within seconds."
    st.html(html.section("Client keys", note))
    found = page_frame.find(
        sorted(clients, key=lambda key: _urgency(key, today)), MOST_ROWS, "Find a client",
        "Part of its name", lambda key: key.name,
    )  # fmt: skip
    if len(clients) > MOST_ROWS:
        shown = f"{min(len(found), MOST_ROWS):,} of {len(clients):,}, the fullest budget first"
        st.html(html.note(shown if found else "No client has this in its name."))
    rows = [_client_cells(key, today) for key in found[:MOST_ROWS]]
    page_frame.show_html(html.table(rows, stacked=True))


def _urgency(key: KeySummary, today: date) -> tuple[int, float, str]:
    decision, limits, spent = _decide(key, today), key.limits or KeyLimits(), key.spent
    pairs = (
        (spent.day_usd, limits.budget_day_usd),
        (spent.month_usd, limits.budget_month_usd),
    )
    fullest = max((spent / budget for spent, budget in pairs if budget), default=0.0)
    return (-(decision.level if decision else 0), -fullest, key.name.casefold())


def _client_cells(key: KeySummary, today: date) -> html.Row:
    limits, spent = key.limits or KeyLimits(), key.spent
    routes, opt_outs = labels.few(sorted(key.routes), 2), ", ".join(sorted(key.opt_outs))
    warn = limits.warn_share
    month = _spent(spent.month_usd, spent.unpriced, limits.budget_month_usd, warn)
    return {
        "Client": noted(strong(key.name), f"…{key.hint}"),
        "Budget": _budget(_decide(key, today)),
        "Today": _spent(spent.day_usd, spent.unpriced, limits.budget_day_usd, warn),
        "This month": month + unpriced(spent.unpriced, known=bool(spent.month_usd)),
        "Rate": _rates(limits),
        "Routes": noted(
            escape(routes) if routes else faint("all"),
            opt_outs and f"opted out of {opt_outs}",
        ),
    }


def _budget(found: SpendDecision | None) -> str:
    if found is None:
        return faint("none")
    refused = found.until and not found.allowed
    return noted(state(LEVELS[found.level]), f"until {found.until:%d %b}" if refused else "")


def _spent(spent_usd: float, unpriced: int, budget_usd: float | None, warn_share: float) -> str:
    spent = format_spent_usd(spent_usd, unpriced)
    if budget_usd is None:
        return escape(spent)
    share = spent_usd / budget_usd if budget_usd else 1.0
    words = f"{spent} of {labels.usd(budget_usd)}"
    return _filled(words, "Spent of the budget", share, warn_share)


def _filled(words: str, name: str, share: float, warns_at: float) -> str:
    tone = Tone.WORSE if share >= 1 else Tone.UNDECIDED if share >= warns_at else Tone.BETTER
    return f"{escape(words)}{meter(name, share, tone)}"


def unpriced(requests: int, *, known: bool = True) -> str:
    """Says how many requests a sum leaves out; empty for none. known: whether it has others."""
    words = f"{'and ' if known else ''}{labels.plural(requests, 'request')} of unknown price"
    return f" {faint(words)}" if requests else ""


def _rates(limits: KeyLimits) -> str:
    known = ((limits.requests_per_min, "requests"), (limits.tokens_per_min, "tokens"))
    parts = [f"{value:,.15g} {unit} / min" for value, unit in known if value is not None]
    return "<br>".join(map(escape, parts)) or faint("not limited")


def _management(found: Sequence[KeySummary]) -> None:
    note = (
        "With a role in API, command line and dashboard. Each belongs to a person or service."
    )
    nobody = "Nobody has one: only the operator of this machine can act."
    by_name = sorted(found, key=lambda key: (key.principal_name.casefold(), key.created_at))
    rows = [
        {
            "Whose": strong(key.principal_name),
            "Role": escape(key.role.name.lower() if key.role else ""),
            "Key": escape(f"{key.name} …{key.hint}"),
            "Created (UTC)": _day(key.created_at),
        }
        for key in by_name
    ]
    st.html(html.listing("Management keys", note, rows, nobody))


def _revoked_cells(key: KeySummary) -> html.Row:
    return {
        "Key": escape(f"{key.name} …{key.hint}"),
        "Kind": escape(kind(key)),
        "Revoked (UTC)": _day(key.revoked_at) if key.revoked_at else "",
    }


def _day(at: datetime) -> str:
    return f"{at:%d %b %Y}"


def _spending() -> None:
    report = load_report(page_frame.context())
    headline = f"<p>{html.rich(report.headline)}</p>"
    st.html(html.block("<h2>What Swapgate itself spent this month</h2>", headline))
    if report.reason:  # why work waits
        st.html(html.note(f"{report.reason}. Users' requests are served as before."))
    if any(row.calls or row.spent_usd for row in report.purposes):
        rows = [
            {
                "On what": escape(row.purpose.value),
                "Spent": escape(format_spent_usd(row.spent_usd, row.unpriced)),
                "Calls": f"{row.calls:,}",
                "Without a price": f"{row.unpriced:,}" if row.unpriced else "none",
                "State": f"{row.purpose.at_the_cap} at the cap" if report.reason else "",
            }
            for row in report.purposes
        ]
        st.html(html.table(rows, stacked=True))
    else:
        page_frame.show_empty(
            "Nothing was spent in this month. An eval does:",
            "swapgate eval run SUITE PROVIDER/MODEL",
        )


_WAYS: Final = {
    "key": "a management key",
    "link": "a one-time link",
    "oidc": "single sign-on",
}
_KINDS: Final = {
    PrincipalKind.LOCAL: "the command line of this machine",
    PrincipalKind.SERVICE: "a key, as a service",
    PrincipalKind.PERSON: "a key",
}


def _person_cells(view: PersonView) -> html.Row:
    way = f"single sign-on at {view.issuer}" if view.issuer else _KINDS[view.kind]
    if view.person:
        said = (
            "no other person here" if view.person == view.name else f"the same as {view.person}"
        )
        declared = noted(escape(said), f"said by {view.declared_by}: {view.reason}")
    elif view.issuer:
        declared = state(Label("?", "not declared yet", Tone.UNDECIDED))
    else:
        declared = faint("as named")
    return {"Name": strong(view.name), "Acts by": escape(way), "Is": declared}


def _who_first(view: PersonView) -> tuple[bool, str]:
    return (bool(view.person) or view.issuer is None, view.folded)


def _session_cells(view: SignedInSession) -> html.Row:
    return {
        "Name": strong(view.name),
        "Signed in": escape(labels.date_time(view.opened_at)),
        "By": escape(_WAYS[view.by]),
        "Until (UTC)": escape(labels.date_time(view.expires_at)),
    }


NO_OTHER: Final = "No other person here"
OWN: Final = "An admin sees every person here. All others see themselves alone."
NOTE: Final = (
    "Who approves is another person than who proposed. If somebody has a key and uses single "
    "sign-on, declare that both are one person. Until an admin has declared who somebody of "
    "single sign-on is, he and people with keys approve nothing of each other's."
)


def _people() -> None:
    ctx, actor = page_frame.context(), current_user.signed_in()
    known = people.list_people(ctx, actor)
    going_on = dashboard_sessions.list_open(ctx, actor)
    others = [view for view in known if view.kind is not PrincipalKind.LOCAL]
    st.html(html.section("People", NOTE))
    alone = "" if others else "The operator of this machine is the only person."
    unused = "" if going_on else "No person is signed in."
    show_openers(
        [declare.opener(known, missing=alone), end_session.opener(going_on, missing=unused)]
    )
    if actor is None or actor.role < Role.ADMIN:
        st.html(html.note(OWN))
    if not known:
        return
    rows = [_person_cells(view) for view in sorted(known, key=_who_first)[:MOST_ROWS]]
    st.html(html.table(rows, stacked=True))
    if len(known) > MOST_ROWS:
        st.html(html.note(f"{MOST_ROWS} of {len(known):,}; swapgate person list has all."))
    if going_on:
        st.html(html.listing("Signed in now", "", map(_session_cells, going_on[:MOST_ROWS])))


@dialog("Declare who somebody is", Role.ADMIN, "declaration", "group", width="medium")
def declare(form: Form, known: Sequence[PersonView]) -> None:
    lacks = "Choose two names and give a reason: the audit log keeps it."
    names = [view.name for view in known if view.kind is not PrincipalKind.LOCAL]
    name = form.choose("name", "Who", names, placeholder="Choose a name")
    persons = [NO_OTHER, *(view.name for view in known if view.name != name)]
    person = form.choose("person", "Is the same person as", persons)
    form.need(name and person, lacks)
    reason = form.text("why", REASON, need=lacks)
    one = f"{name} and {person} are one person."
    form.says = f"{name} is no other person here." if person == NO_OTHER else one
    form.submit("Declare it", "", _declare, name or "", person or "", reason)


def _declare(ctx: Context, actor: Actor, name: str, person: str, reason: str) -> None:
    if person == NO_OTHER:
        people.separate(ctx, actor, name, reason)
    else:
        people.link(ctx, actor, name, person, reason)


@dialog("End a session", Role.ADMIN, "session", "logout", width="medium")
def end_session(form: Form, going_on: Sequence[SignedInSession]) -> None:
    lacks = "Choose a session and give a reason."
    choices = {
        f"{view.name} · since {labels.date_time(view.opened_at)} · {view.id}": view
        for view in going_on
    }
    view = choices.get(form.choose("whose", "Whose", choices, need=lacks) or "")
    reason = form.text("why", REASON, need=lacks)
    form.says = f"{view.name} is signed out of that browser." if view else ""
    ended = view.id if view else ""
    form.submit("End the session", "", dashboard_sessions.end_another, ended, reason)


if __name__ == "__main__":
    page_frame.show_page("The keys", show)
