"""The Keys & spending page answers: does any client run out of its budget, who may act, and
what did Swapgate itself spend, and swaps save?
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs.keys import kind, show_buttons, show_new_key
from dashboard.sections import people
from dashboard.text import html, labels
from dashboard.text.html import escape, faint, meter, noted, state, strong
from dashboard.text.labels import Label, Tone
from harness.app.installation import Installation
from harness.control.operations.keys import KeySummary
from harness.control.operations.queries import list_keys
from harness.control.operations.spending import load_report
from harness.domain.formatting import format_spent_usd
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.reliability.rate_limits import (
    KeyLimits,
    LimitStatus,
    RateLimit,
    RateState,
    limit_statuses,
)
from harness.domain.reliability.spend import SpendDecision, SpendLevel, check_budget
from router.access import rate_limits

FULL: Final = 0.8  # of a rate: from there on its meter warns
# With more client keys than these, the page has a search and shows no more at once.
MOST_ROWS: Final = 50
LEVELS: Final = {
    SpendLevel.FINE: Label("✓", "within", Tone.BETTER),
    SpendLevel.WARNING: Label("?", "nearly used up", Tone.UNDECIDED),
    SpendLevel.STOPPED: Label("✕", "used up", Tone.WORSE),
}
# How the rate limits of keys stand, by the key's id; None where no router has a book here.
RateUse = Mapping[str, Sequence[LimitStatus]] | None


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
        _clients(clients, now.date(), load_rate_use(page_frame.installation(), clients))
    else:
        page_frame.show_empty(
            "Clients of the router send a key. This creates one:", "swapgate key create CLIENT"
        )
    _management([key for key in live if key.role is not None])
    people.show_people()
    if gone:
        with st.expander(labels.plural(len(gone), "revoked key")):
            st.html(html.table(map(_revoked_cells, gone), stacked=True))
    page_frame.show_rest(page, "keys", "swapgate key list")
    _spending()
    page_frame.copy_as_cli(["key", "list"], ["spending"])


def _decide(key: KeySummary, today: date) -> SpendDecision | None:
    """Decides how a client key stands in its budget; None without one."""
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


def load_rate_use(installation: Installation, keys: Iterable[KeySummary]) -> RateUse:
    """Loads how the rate limits of keys stand; keys without one are left out. None where the
    router runs on another machine, or never ran.
    """
    limited = {key.id: key.limits.rate for key in keys if key.limits is not None}
    now = installation.clock.monotonic()
    book = installation.settings.home / rate_limits.BOOK
    since = installation.clock.now().timestamp() - now
    try:
        states = rate_limits.read_rates(book, limited, since=since)
    except OSError:
        return None
    found = {
        id_: limit_statuses(states.get(id_, RateState()), rate, now)
        for id_, rate in limited.items()
    }
    return {id_: statuses for id_, statuses in found.items() if statuses}


def _clients(clients: Sequence[KeySummary], today: date, rates: RateUse) -> None:
    note = (
        "A request's cost counts as soon as it is recorded, within seconds. A rate fills with "
        "each request and is empty again after a minute without one."
    )
    st.html(html.section("Client keys", note))
    found = page_frame.find(
        sorted(clients, key=lambda key: _urgency(key, today)), MOST_ROWS, "Find a client",
        "Part of its name", lambda key: key.name,
    )  # fmt: skip
    if len(clients) > MOST_ROWS:
        shown = f"{min(len(found), MOST_ROWS):,} of {len(clients):,}, the fullest budget first"
        st.html(html.note(shown if found else "No client has this in its name."))
    rows = [_client_cells(key, today, rates) for key in found[:MOST_ROWS]]
    page_frame.show_html(html.table(rows, stacked=True))


def _urgency(key: KeySummary, today: date) -> tuple[int, float, str]:
    """Orders client keys: the fullest budget first, then by name."""
    decision, limits, spent = _decide(key, today), key.limits or KeyLimits(), key.spent
    pairs = (
        (spent.day_usd, limits.budget_day_usd),
        (spent.month_usd, limits.budget_month_usd),
    )
    fullest = max((spent / budget for spent, budget in pairs if budget), default=0.0)
    return (-(decision.level if decision else 0), -fullest, key.name.casefold())


def _client_cells(key: KeySummary, today: date, rates: RateUse) -> html.Row:
    limits, spent = key.limits or KeyLimits(), key.spent
    routes, opt_outs = labels.few(sorted(key.routes), 2), ", ".join(sorted(key.opt_outs))
    warn = limits.warn_share
    month = _spent(spent.month_usd, spent.unpriced, limits.budget_month_usd, warn)
    return {
        "Client": noted(strong(key.name), f"…{key.hint}"),
        "Budget": _budget(_decide(key, today)),
        "Today": _spent(spent.day_usd, spent.unpriced, limits.budget_day_usd, warn),
        "This month": month + unpriced(spent.unpriced, known=bool(spent.month_usd)),
        "Rate, used now": _rates(limits, None if rates is None else rates.get(key.id, ())),
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


def _rates(limits: KeyLimits, now: Sequence[LimitStatus] | None) -> str:
    if limits.rate == RateLimit():
        return faint("not limited")
    if not now:
        known = (
            (limits.requests_per_min, "requests"),
            (limits.tokens_per_min, "tokens"),
        )
        parts = [f"{value:,.15g} {unit} / min" for value, unit in known if value is not None]
        return "<br>".join((*map(escape, parts), faint("use not known here")))
    cells = []
    for status in now:
        used = status.per_minute - status.remaining
        words = f"{used:,.0f} of {status.per_minute:,.15g} {status.kind} / min"
        name = f"Used of the {status.kind} per minute"
        cells.append(_filled(words, name, used / status.per_minute, FULL))
    return "".join(cells)


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


if __name__ == "__main__":
    page_frame.show_page("The keys", show)
