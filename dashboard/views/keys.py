"""The Keys & spending page answers: does any client run out of its budget, which people may
act, and how much did Swapproof spend?

The page shows a new key once, to the person who created it. The same pure function as in the
router decides budgets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import (
    REASON,
    Form,
    Opener,
    SettingsForm,
    dialog,
)
from dashboard.labels import Label, Tone
from dashboard.markup import escape, faint, meter, noted, rich, state, strong
from dashboard.resource_page import ResourceList, ResourcePage, Search
from harness.evals.spending import SpendingReport, load_report
from harness.frame.errors import StaleWrite
from harness.frame.formatting import format_spent_usd
from harness.frame.pagination import MOST_LISTED, Page, PageRequest
from harness.frame.people.access import Actor, OptOut, PrincipalKind, Role
from harness.frame.people.limits import (
    KeyLimits,
    SpendDecision,
    SpendLevel,
    check_budget,
)
from harness.operations import keys
from harness.operations.context import Context
from harness.operations.keys import KeySummary, PersonView
from harness.operations.queries import list_keys

# The page shows at most this many client keys; with more keys it has a search field.
MOST_ROWS: Final = 50
LEVELS: Final = {
    SpendLevel.FINE: Label("✓", "within", Tone.BETTER),
    SpendLevel.WARNING: Label("?", "nearly used up", Tone.UNDECIDED),
    SpendLevel.STOPPED: Label("✕", "used up", Tone.WORSE),
}


@dataclass(frozen=True, slots=True)
class KeysView:
    """The page's data."""

    clients: Page[KeySummary]  # client keys, the worst state and the fullest budget first
    managers: Sequence[KeySummary]  # management keys, by owner
    people: Sequence[PersonView]  # people without a declaration first
    report: SpendingReport  # Swapproof's own spending
    now: datetime

    @property
    def active(self) -> Sequence[KeySummary]:
        return [*self.clients, *self.managers]


def load(ctx: Context, _: None) -> KeysView:
    """Loads the keys that are not revoked, the people, and Swapproof's spending this month."""
    page = list_keys(ctx, PageRequest(MOST_LISTED))
    now = ctx.clock.now()
    active = [key for key in page if key.revoked_at is None]
    clients = [key for key in active if key.role is None]
    managers = [key for key in active if key.role is not None]
    people = keys.list_people(ctx, current_user.signed_in())
    return KeysView(
        clients=replace(
            page, items=sorted(clients, key=lambda key: _build_sort_key(key, now.date()))
        ),
        managers=sorted(
            managers, key=lambda key: (key.principal_name.casefold(), key.created_at)
        ),
        # People without a declaration come first, because an admin must still declare them.
        people=sorted(people, key=lambda v: (bool(v.person) or v.issuer is None, v.folded)),
        report=load_report(ctx),
        now=now,
    )


def _list_actions(view: KeysView) -> Sequence[Opener]:
    owners = sorted({key.principal_name for key in view.managers})
    obstacle = "" if view.active else "There is no key to change."
    return [
        create_client_key.opener(),
        create_management_key.opener(owners),
        change_key.opener(view.active, missing=obstacle),
    ]


def _decide(key: KeySummary, today: date) -> SpendDecision | None:
    """Decides a key's budget as the router does; None for a key without a budget."""
    if key.limits is None or not key.limits.budgeted:
        return None
    return check_budget(key.limits.budget, key.spent, today)


def _write_headline(clients: Sequence[KeySummary], today: date) -> str:
    """Names the clients with a used up or nearly used up budget."""
    if not clients:
        return "No client has a key yet"
    decisions = {key.name: _decide(key, today) for key in clients}
    levels = {
        name: decision.level for name, decision in decisions.items() if decision is not None
    }
    for level, phrase in (
        (SpendLevel.STOPPED, "used up a budget: requests are refused"),
        (SpendLevel.WARNING, "nearly used up a budget"),
    ):
        if names := [name for name, reached_level in levels.items() if reached_level is level]:
            verb = "has" if len(names) == 1 else "have"
            return f"{strong(labels.few(names, 3))} {verb} {phrase}"
    count = labels.plural(len(clients), "client key")
    if not levels:
        return f"{count}, none with a budget"
    if len(levels) == len(clients):
        return f"{count}, {'within its' if len(clients) == 1 else 'all within'} budget"
    return f"{count}; {len(levels)} with a budget, all within it"


def _build_sort_key(key: KeySummary, today: date) -> tuple[int, float, str]:
    """Returns the sort key of clients: the worst state first, then the fullest budget."""
    decision = _decide(key, today)
    limits = key.limits or KeyLimits()
    spent = key.spent
    pairs = (
        (spent.day_usd, limits.budget_day_usd),
        (spent.month_usd, limits.budget_month_usd),
    )
    fullest = max((spent / budget for spent, budget in pairs if budget), default=0.0)
    return (
        -(decision.level if decision else 0),
        -fullest,
        key.name.casefold(),
    )


def _build_client_row(view: KeysView, key: KeySummary) -> markup.Row:
    """Builds a client key's row. Costs of unknown price are counted beside the known sum."""
    today = view.now.date()
    limits = key.limits or KeyLimits()
    spent = key.spent
    routes = labels.few(sorted(key.routes), 2)
    opt_outs = ", ".join(sorted(key.opt_outs))
    warn_share = limits.warn_share
    # Only some days of a month may have a bounded cost. The row shows all of them as bounded.
    inexact_requests = spent.unpriced + spent.bounded
    month_html = _render_spent(
        spent.month_usd, inexact_requests, limits.budget_month_usd, warn_share
    )
    return {
        "Client": noted(strong(key.name), f"…{key.hint}"),
        "Budget": _render_budget(_decide(key, today)),
        "Today": _render_spent(
            spent.day_usd, inexact_requests, limits.budget_day_usd, warn_share
        ),
        "This month": month_html + unpriced(spent.unpriced, known=bool(spent.month_usd)),
        "Rate": _render_rates(limits),
        "Routes": noted(
            escape(routes) if routes else faint("all"),
            opt_outs and f"opted out of {opt_outs}",
        ),
    }


def _render_budget(decision: SpendDecision | None) -> str:
    if decision is None:
        return faint("none")
    is_refused = decision.until and not decision.allowed
    return noted(
        state(LEVELS[decision.level]),
        f"until {decision.until:%d %b}" if is_refused else "",
    )


def _render_spent(
    spent_usd: float,
    unpriced: int,
    budget_usd: float | None,
    warn_share: float,
) -> str:
    """Renders a spent amount, with a meter if there is a budget."""
    spent_text = format_spent_usd(spent_usd, unpriced)
    if budget_usd is None:
        return escape(spent_text)
    share = spent_usd / budget_usd if budget_usd else 1.0
    text = f"{spent_text} of {labels.usd(budget_usd)}"
    return _render_meter(text, "Spent of the budget", share, warn_share)


def _render_meter(
    words: str,
    name: str,
    share: float,
    warn_share: float,
) -> str:
    """Renders words above a meter.

    Args:
        warn_share: the meter warns from this share on.
    """
    tone = Tone.WORSE if share >= 1 else Tone.UNDECIDED if share >= warn_share else Tone.BETTER
    return f"{escape(words)}{meter(name, share, tone)}"


def unpriced(requests: int, *, known: bool = True) -> str:
    """Counts the requests of unknown price.

    Args:
        known: whether a sum of known prices precedes.
    """
    text = f"{'and ' if known else ''}{labels.plural(requests, 'request')} of unknown price"
    return f" {faint(text)}" if requests else ""


def _render_rates(limits: KeyLimits) -> str:
    rates = (
        (limits.requests_per_min, "requests"),
        (limits.tokens_per_min, "tokens"),
    )
    parts = [f"{value:,.15g} {unit} / min" for value, unit in rates if value is not None]
    return "<br>".join(map(escape, parts)) or faint("not limited")


def _build_manager_row(_: KeysView, key: KeySummary) -> markup.Row:
    return {
        "Owner": strong(key.principal_name),
        "Role": escape(key.role.name.lower() if key.role else ""),
        "Key": escape(f"{key.name} …{key.hint}"),
        "Created": labels.day(key.created_at),
    }


def _show_spending(view: KeysView) -> None:
    """Shows Swapproof's own spending this month by purpose, and whether the cap stops it."""
    report = view.report
    headline = f"<p>{markup.rich(report.headline)}</p>"
    st.html(markup.block("<h2>Swapproof's own spending this month</h2>", headline))
    if report.reason:  # Swapproof's work waits for money
        st.html(markup.note(f"{report.reason}. The router serves callers' requests as before."))
    if any(row.calls or row.spent_usd for row in report.purposes):
        rows = [
            {
                "Purpose": escape(row.purpose.value),
                "Spent": escape(format_spent_usd(row.spent_usd, row.unpriced)),
                "Calls": f"{row.calls:,}",
                "Without a price": f"{row.unpriced:,}" if row.unpriced else "none",
                "State": f"{row.purpose.state_at_cap} at the cap" if report.reason else "",
            }
            for row in report.purposes
        ]
        st.html(markup.table(rows, stacked=True))
    else:
        page_frame.show_empty(
            "Swapproof has spent nothing this month. This command runs an eval:",
            "swapproof eval run SUITE PROVIDER/MODEL",
        )


_KIND_WORDS: Final = {
    PrincipalKind.LOCAL: "the command line of this machine",
    PrincipalKind.SERVICE: "a key, as a service",
    PrincipalKind.PERSON: "a key",
}


def _build_person_row(_: KeysView, view: PersonView) -> markup.Row:
    access = f"single sign-on at {view.issuer}" if view.issuer else _KIND_WORDS[view.kind]
    if view.person:
        relation = (
            "a separate person" if view.person == view.name else f"the same as {view.person}"
        )
        declaration = noted(
            escape(relation),
            f"declared by {view.declared_by}: {view.reason}",
        )
    elif view.issuer:
        declaration = state(Label("?", "not declared yet", Tone.UNDECIDED))
    else:
        declaration = faint("as named")
    return {
        "Name": strong(view.name),
        "Acts by": escape(access),
        "Person": declaration,
    }


SEPARATE_PERSON: Final = "No other person here"
VISIBILITY_NOTE: Final = "An admin sees every person here; other people see only themselves."
PEOPLE_NOTE: Final = (
    "The proposer and the approver of a swap must be two people. If a person has a key and "
    "uses single sign-on, declare that both names are one person. Before an admin's "
    "declaration, people of single sign-on and people with keys cannot approve each other's "
    "proposals."
)


def _list_people_openers(view: KeysView) -> Sequence[Opener]:
    declarable = [person for person in view.people if person.kind is not PrincipalKind.LOCAL]
    obstacle = "" if declarable else "The operator of this machine is the only person."
    return [declare.opener(view.people, missing=obstacle)]


def _explain_visibility(view: KeysView) -> None:
    """Explains to visitors other than admins that the list is incomplete."""
    actor = current_user.signed_in()
    if view.people and (actor is None or actor.role < Role.ADMIN):
        st.html(markup.note(VISIBILITY_NOTE))


@dialog("Declare a person", Role.ADMIN, "declaration", "group", width="medium")
def declare(form: Form, people: Sequence[PersonView]) -> None:
    missing_text = "Choose two names and give a reason: the audit log keeps it."
    names = [view.name for view in people if view.kind is not PrincipalKind.LOCAL]
    name = form.choose("name", "Who", names, placeholder="Choose a name")
    persons = [SEPARATE_PERSON, *(view.name for view in people if view.name != name)]
    person = form.choose("person", "Is the same person as", persons)
    form.need(name and person, missing_text)
    reason = form.text("why", REASON, need=missing_text)
    joined_text = f"{name} and {person} are one person."
    form.success_message = (
        f"{name} is a separate person." if person == SEPARATE_PERSON else joined_text
    )
    form.submit("Declare it", "", _declare, name or "", person or "", reason)


def _declare(
    ctx: Context,
    actor: Actor,
    name: str,
    person: str,
    reason: str,
) -> None:
    """Declares two names to be one person, or a name to be a separate person."""
    if person == SEPARATE_PERSON:
        keys.separate_people(ctx, actor, name, reason)
    else:
        keys.link_people(ctx, actor, name, person, reason)


NEW_KEY: Final = "new-key"
OPT_OUTS: Final[Mapping[OptOut, str]] = {
    OptOut.CANARY: "Canaries: the incumbent answers, and the request does not count",
    OptOut.SHADOW: "Shadows: no candidate or judge gets a copy",
    OptOut.CAPTURE: "Captures: no copy is kept, no judge sees one",
}
PERSON = "A new person"
SERVICE = "A new service"
KNOWN = "Somebody who has a key already"


@dialog("Create a client key", Role.ADMIN, "client", "add", width="medium")
def create_client_key(form: Form) -> None:
    """Asks for a client's key: its routes, limits and opt-outs."""
    name = form.text("name", "Client, who uses the key", need="Name the client first.")
    routes = st.multiselect(
        "Routes that it opens",
        list(page_frame.route_names(page_frame.context())),
        key=form.key("routes"),
        placeholder="All routes, later ones too",
    )
    limits = _ask_limits(KeyLimits(), form)
    opt_outs = _ask_opt_outs((), form)
    form.success_message = (
        f"Created a key for {name}. Copy it below: Swapproof shows it only once."
    )
    form.submit(
        "Create the key",
        "",
        _create,
        name,
        routes=routes,
        limits=limits,
        opt_outs=opt_outs,
    )


@dialog(
    "Create a management key",
    Role.ADMIN,
    "manager",
    "person_add",
    width="medium",
)
def create_management_key(form: Form, people: Sequence[str]) -> None:
    """Asks for a key with a role, for a new person or service, or for an owner who has a key
    already.
    """
    owner_kind = st.radio(
        "Whose key",
        [PERSON, SERVICE, *([KNOWN] if people else [])],
        key=form.key("whose"),
    )
    owner = st.selectbox("Name", people, key=form.key("owner")) if owner_kind == KNOWN else None
    label = "Name of the key" if owner_kind == KNOWN else "Name"
    name = form.text("name", label, need="Name it first.")
    roles = {role.name.lower(): role for role in Role}
    role = roles[st.selectbox("Role", list(roles), key=form.key("role"))]
    st.html(markup.note("A second key does not make its owner a second person."))
    form.success_message = (
        f"Created the key {name}. Copy it below: Swapproof shows it only once."
    )
    is_service = owner_kind == SERVICE
    form.submit(
        "Create the key",
        "",
        _create,
        name,
        role=role,
        principal=owner,
        service=is_service,
    )


def _create(
    ctx: Context,
    actor: Actor,
    /,
    name: str,
    **options: Any,
) -> None:
    """Creates a key, and keeps its text in the session until its creator has stored it."""
    secret = page_frame.installation().secret
    _, key_text = keys.create_key(
        ctx,
        actor,
        name,
        secret=secret,
        **options,
    )
    st.session_state[NEW_KEY] = (actor.principal, name, key_text)


def show_new_key(_: object = None) -> None:
    """Shows a new key to its creator. Forgets it if another person uses the browser."""
    new_key = st.session_state.get(NEW_KEY)
    if new_key is None:
        return
    creator, name, key_text = new_key
    actor = current_user.signed_in()
    if actor is None or actor.principal != creator:
        del st.session_state[NEW_KEY]
        return
    with st.container(border=True):
        warning = "Swapproof does not store it in clear text, and never shows it again."
        st.html(markup.block(f"<p>The key of {strong(name)}. {escape(warning)}</p>"))
        st.code(key_text, language=None, wrap_lines=True)
        if st.button("I have stored it", key="stored", type="primary"):
            del st.session_state[NEW_KEY]
            st.rerun()


def _ask_limits(present: KeyLimits, form: Form) -> KeyLimits:
    st.html(markup.note("An empty field means no limit."))
    return KeyLimits(**SettingsForm(KeyLimits).ask(present, form.key, advanced=False))


def _ask_opt_outs(present: Iterable[OptOut], form: Form) -> list[OptOut]:
    return st.multiselect(
        "Keep its requests out of",
        list(OPT_OUTS),
        default=sorted(present),
        format_func=OPT_OUTS.__getitem__,
        key=form.key("opt-outs"),
        placeholder="Nothing",
    )


@dialog("Change or revoke a key", Role.ADMIN, "chosen", "edit", width="medium")
def change_key(form: Form, active_keys: Sequence[KeySummary]) -> None:
    """Asks for a key, and then for its limits, its opt-outs or its revocation."""
    keys_by_id = {
        key.id: key for key in sorted(active_keys, key=lambda key: key.name.casefold())
    }
    titles = {}
    for key_id, summary in keys_by_id.items():
        kind = f"{summary.role.name.lower()} key" if summary.role else "client key"
        titles[key_id] = f"{summary.name} · {kind} …{summary.hint}"
    chosen_id = form.choose(
        "key",
        "Key",
        keys_by_id,
        placeholder="Choose a key, or write a part of its name",
        format_func=lambda key_id: titles.get(key_id, key_id),
    )
    key = keys_by_id.get(chosen_id or "")
    if key is None:
        return
    forms = {
        "Limits": _change_limits,
        "Opt-outs": _change_opt_outs,
        "Revoke": _revoke,
    }
    names = list(forms) if key.role is None else ["Revoke"]
    action = st.segmented_control(
        "What",
        names,
        default=names[0],
        required=True,
        key=f"act-{key.id}",
    )
    forms[action](key)


def _change_limits(key: KeySummary) -> None:
    """Asks for a key's limits. Fails if another person changed them meanwhile."""
    form = Form(Role.ADMIN, "limit", key.id)
    shown_limits = key.limits or KeyLimits()
    st.html(markup.note("Past spending still counts. Routers apply the limits within 2 s."))
    new_limits = _ask_limits(shown_limits, form)
    form.need(new_limits != shown_limits, "These are its limits already.")

    def change(stored_limits: KeyLimits) -> KeyLimits:
        # Writing all limits would undo another person's change.
        if stored_limits != shown_limits:
            raise StaleWrite(
                "another person changed this key's limits after this dialog was opened: "
                "close it and open it again to see the limits as they are now"
            )
        return new_limits

    done_text = f"changed the limits of {key.name}."
    form.submit("Set the limits", done_text, keys.set_limits, key.id, change)


def _change_opt_outs(key: KeySummary) -> None:
    form = Form(Role.ADMIN, "opt-out", key.id)
    st.html(markup.note("Routers apply it within 2 s. Copies that are already stored stay."))
    new_opt_outs = _ask_opt_outs(key.opt_outs, form)
    form.need(frozenset(new_opt_outs) != key.opt_outs, "These are its opt-outs already.")
    done_text = f"changed the opt-outs of {key.name}."
    form.submit("Set the opt-outs", done_text, keys.set_opt_outs, key.id, new_opt_outs)


def _revoke(key: KeySummary) -> None:
    """Asks to revoke a key. The person types the key's name."""
    form = Form(Role.ADMIN, "revoke", key.id)
    actor = current_user.signed_in()
    client_note = "Routers refuse its requests within 2 s. You cannot undo this."
    owner_note = "Its owner can no longer act with it, from the next click or request on."
    effect = owner_note if key.role else client_note
    form.say(f"{strong(key.name)} …{escape(key.hint)}: {escape(effect)}")
    if actor is not None and actor.key == key.id:
        st.html(markup.banner("▲ You act with this key.", "You will be signed out."))
    form.confirm(key.name)
    form.submit(
        "Revoke it",
        f"revoked the key of {key.name}.",
        keys.revoke_key,
        key.id,
    )


CLIENTS: Final = ResourceList[KeysView, KeySummary](
    rows=lambda view: view.clients,
    cells=_build_client_row,
    heading="Client keys",
    note="A request's cost counts as soon as it is recorded, within seconds.",
    nothing="Clients of the router send a key. This creates one:",
    fills="swapproof key create CLIENT",
    search=Search(
        "Find a client",
        "Part of its name",
        lambda key: key.name,
        MOST_ROWS,
        "No client has this in its name.",
    ),
    what="keys",
    lists_all="swapproof key list",
)
MANAGERS: Final = ResourceList[KeysView, KeySummary](
    rows=lambda view: view.managers,
    cells=_build_manager_row,
    heading="Management keys",
    note="Keys of people and services, with a role in API, command line and dashboard.",
    nothing="There is no management key: only the operator of this machine can act.",
)
PEOPLE: Final = ResourceList[KeysView, PersonView](
    rows=lambda view: view.people,
    cells=_build_person_row,
    heading="People",
    note=PEOPLE_NOTE,
    nothing=VISIBILITY_NOTE,
    actions=_list_people_openers,
    search=Search(
        "Find a person",
        "Part of a name",
        lambda person: person.name,
        MOST_ROWS,
        "No person has this in the name.",
        key="find-person",
    ),
    what="people",
)
PAGE: Final = ResourcePage[None, KeysView](
    name="The keys",
    ask=lambda: None,
    load=load,
    title=lambda view: (
        _write_headline(view.clients, view.now.date()),
        rich(labels.date_time(view.now)),
    ),
    actions=_list_actions,
    parts=(
        show_new_key,
        CLIENTS.show,
        MANAGERS.show,
        PEOPLE.show,
        _explain_visibility,
        _show_spending,
    ),
    commands=lambda _: [["key", "list"], ["spending"]],
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
