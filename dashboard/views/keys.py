"""The Keys & spending page answers: does any client run out of its budget, who may act, and
what did Swapgate spend?

A new key is shown once, to the person who created it. Budgets are decided by the same pure
function as in the router.
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
from dashboard.markup import escape, faint, meter, noted, state, strong
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

# The page shows at most this many client keys at once; with more keys it has a search field.
MOST_ROWS: Final = 50
LEVELS: Final = {
    SpendLevel.FINE: Label("✓", "within", Tone.BETTER),
    SpendLevel.WARNING: Label("?", "nearly used up", Tone.UNDECIDED),
    SpendLevel.STOPPED: Label("✕", "used up", Tone.WORSE),
}


@dataclass(frozen=True, slots=True)
class KeysView:
    """What the page shows."""

    clients: Page[KeySummary]  # client keys, the worst state and the fullest budget first
    managers: Sequence[KeySummary]  # management keys, by owner
    people: Sequence[PersonView]  # those without a declaration first
    report: SpendingReport  # Swapgate's own spending
    now: datetime

    @property
    def live(self) -> Sequence[KeySummary]:
        return [*self.clients, *self.managers]


def load(ctx: Context, _: None) -> KeysView:
    """Loads the keys that are not revoked, the people, and what Swapgate spent this month."""
    page = list_keys(ctx, PageRequest(MOST_LISTED))
    now = ctx.clock.now()
    live = [key for key in page if key.revoked_at is None]
    clients = [key for key in live if key.role is None]
    managers = [key for key in live if key.role is not None]
    people = keys.list_people(ctx, current_user.signed_in())
    return KeysView(
        clients=replace(page, items=sorted(clients, key=lambda key: _urgency(key, now.date()))),
        managers=sorted(
            managers, key=lambda key: (key.principal_name.casefold(), key.created_at)
        ),
        # People without a declaration come first, because an admin must still declare them.
        people=sorted(people, key=lambda v: (bool(v.person) or v.issuer is None, v.folded)),
        report=load_report(ctx),
        now=now,
    )


def _actions(view: KeysView) -> Sequence[Opener]:
    owners = sorted({key.principal_name for key in view.managers})
    lack = "" if view.live else "There is no key to change."
    return [
        create_client_key.opener(),
        create_management_key.opener(owners),
        change_key.opener(view.live, missing=lack),
    ]


def _decide(key: KeySummary, today: date) -> SpendDecision | None:
    """Decides a key's budget as the router does; None for a key without a budget."""
    if key.limits is None or not key.limits.budgeted:
        return None
    return check_budget(key.limits.budget, key.spent, today)


def _headline(clients: Sequence[KeySummary], today: date) -> str:
    """Names the clients with a used up or nearly used up budget."""
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
        return f"{count}, {'within its' if len(clients) == 1 else 'all within'} budget"
    return f"{count}; {len(known)} with a budget, all within it"


def _urgency(key: KeySummary, today: date) -> tuple[int, float, str]:
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


def _client_cells(view: KeysView, key: KeySummary) -> markup.Row:
    """Builds a client key's row. Costs of unknown price are counted beside the known sum."""
    today = view.now.date()
    limits = key.limits or KeyLimits()
    spent = key.spent
    routes = labels.few(sorted(key.routes), 2)
    opt_outs = ", ".join(sorted(key.opt_outs))
    warn = limits.warn_share
    # A month with a bound may begin with days without one: each day is read as bounded.
    open_ = spent.unpriced + spent.bounded
    month = _spent(spent.month_usd, open_, limits.budget_month_usd, warn)
    return {
        "Client": noted(strong(key.name), f"…{key.hint}"),
        "Budget": _budget(_decide(key, today)),
        "Today": _spent(spent.day_usd, open_, limits.budget_day_usd, warn),
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
    return noted(
        state(LEVELS[found.level]),
        f"until {found.until:%d %b}" if refused else "",
    )


def _spent(
    spent_usd: float,
    unpriced: int,
    budget_usd: float | None,
    warn_share: float,
) -> str:
    """Renders what was spent, with a meter if there is a budget."""
    spent = format_spent_usd(spent_usd, unpriced)
    if budget_usd is None:
        return escape(spent)
    share = spent_usd / budget_usd if budget_usd else 1.0
    words = f"{spent} of {labels.usd(budget_usd)}"
    return _filled(words, "Spent of the budget", share, warn_share)


def _filled(
    words: str,
    name: str,
    share: float,
    warns_at: float,
) -> str:
    """Renders words above a meter. warns_at: the share from which it warns."""
    tone = Tone.WORSE if share >= 1 else Tone.UNDECIDED if share >= warns_at else Tone.BETTER
    return f"{escape(words)}{meter(name, share, tone)}"


def unpriced(requests: int, *, known: bool = True) -> str:
    """Counts the requests of unknown price. known: whether a sum of known prices precedes."""
    words = f"{'and ' if known else ''}{labels.plural(requests, 'request')} of unknown price"
    return f" {faint(words)}" if requests else ""


def _rates(limits: KeyLimits) -> str:
    known = (
        (limits.requests_per_min, "requests"),
        (limits.tokens_per_min, "tokens"),
    )
    parts = [f"{value:,.15g} {unit} / min" for value, unit in known if value is not None]
    return "<br>".join(map(escape, parts)) or faint("not limited")


def _manager_cells(_: KeysView, key: KeySummary) -> markup.Row:
    return {
        "Owner": strong(key.principal_name),
        "Role": escape(key.role.name.lower() if key.role else ""),
        "Key": escape(f"{key.name} …{key.hint}"),
        "Created (UTC)": f"{key.created_at:%d %b %Y}",
    }


def _spending(view: KeysView) -> None:
    """Shows what Swapgate itself spent this month by purpose, and whether the cap stops it."""
    report = view.report
    headline = f"<p>{markup.rich(report.headline)}</p>"
    st.html(markup.block("<h2>Swapgate's own spending this month</h2>", headline))
    if report.reason:  # Swapgate's work waits for money
        st.html(markup.note(f"{report.reason}. The router serves callers' requests as before."))
    if any(row.calls or row.spent_usd for row in report.purposes):
        rows = [
            {
                "Purpose": escape(row.purpose.value),
                "Spent": escape(format_spent_usd(row.spent_usd, row.unpriced)),
                "Calls": f"{row.calls:,}",
                "Without a price": f"{row.unpriced:,}" if row.unpriced else "none",
                "State": f"{row.purpose.at_the_cap} at the cap" if report.reason else "",
            }
            for row in report.purposes
        ]
        st.html(markup.table(rows, stacked=True))
    else:
        page_frame.show_empty(
            "Swapgate has spent nothing this month. This command runs an eval:",
            "swapgate eval run SUITE PROVIDER/MODEL",
        )


_KINDS: Final = {
    PrincipalKind.LOCAL: "the command line of this machine",
    PrincipalKind.SERVICE: "a key, as a service",
    PrincipalKind.PERSON: "a key",
}


def _person_cells(_: KeysView, view: PersonView) -> markup.Row:
    way = f"single sign-on at {view.issuer}" if view.issuer else _KINDS[view.kind]
    if view.person:
        relation = (
            "a separate person" if view.person == view.name else f"the same as {view.person}"
        )
        declared = noted(
            escape(relation),
            f"declared by {view.declared_by}: {view.reason}",
        )
    elif view.issuer:
        declared = state(Label("?", "not declared yet", Tone.UNDECIDED))
    else:
        declared = faint("as named")
    return {
        "Name": strong(view.name),
        "Acts by": escape(way),
        "Person": declared,
    }


NO_OTHER: Final = "No other person here"
OWN: Final = "An admin sees every person here; other people see only themselves."
NOTE: Final = (
    "The proposer and the approver of a swap must be two people. If a person has a key and "
    "uses single sign-on, declare that both names are one person. Before an admin's "
    "declaration, people of single sign-on and people with keys cannot approve each other's "
    "proposals."
)


def _declare_opener(view: KeysView) -> Sequence[Opener]:
    others = [person for person in view.people if person.kind is not PrincipalKind.LOCAL]
    alone = "" if others else "The operator of this machine is the only person."
    return [declare.opener(view.people, missing=alone)]


def _explain_reach(view: KeysView) -> None:
    """Tells people other than admins that they do not see everybody."""
    actor = current_user.signed_in()
    if view.people and (actor is None or actor.role < Role.ADMIN):
        st.html(markup.note(OWN))


@dialog("Declare a person", Role.ADMIN, "declaration", "group", width="medium")
def declare(form: Form, known: Sequence[PersonView]) -> None:
    lacks = "Choose two names and give a reason: the audit log keeps it."
    names = [view.name for view in known if view.kind is not PrincipalKind.LOCAL]
    name = form.choose("name", "Who", names, placeholder="Choose a name")
    persons = [NO_OTHER, *(view.name for view in known if view.name != name)]
    person = form.choose("person", "Is the same person as", persons)
    form.need(name and person, lacks)
    reason = form.text("why", REASON, need=lacks)
    one = f"{name} and {person} are one person."
    form.success_message = f"{name} is a separate person." if person == NO_OTHER else one
    form.submit("Declare it", "", _declare, name or "", person or "", reason)


def _declare(
    ctx: Context,
    actor: Actor,
    name: str,
    person: str,
    reason: str,
) -> None:
    """Declares two names to be one person, or a name to be a separate person."""
    if person == NO_OTHER:
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
        f"Created a key for {name}. Copy it below: Swapgate shows it only once."
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
    whose = st.radio(
        "Whose key",
        [PERSON, SERVICE, *([KNOWN] if people else [])],
        key=form.key("whose"),
    )
    owner = st.selectbox("Name", people, key=form.key("owner")) if whose == KNOWN else None
    label = "Name of the key" if whose == KNOWN else "Name"
    name = form.text("name", label, need="Name it first.")
    roles = {role.name.lower(): role for role in Role}
    role = roles[st.selectbox("Role", list(roles), key=form.key("role"))]
    st.html(markup.note("A second key does not make its owner a second person."))
    form.success_message = (
        f"Created the key {name}. Copy it below: Swapgate shows it only once."
    )
    service = whose == SERVICE
    form.submit(
        "Create the key",
        "",
        _create,
        name,
        role=role,
        principal=owner,
        service=service,
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
    _, text = keys.create_key(
        ctx,
        actor,
        name,
        secret=secret,
        **options,
    )
    st.session_state[NEW_KEY] = (actor.principal, name, text)


def show_new_key(_: object = None) -> None:
    """Shows a new key to its creator. Forgets it if another person uses the browser."""
    new_key = st.session_state.get(NEW_KEY)
    if new_key is None:
        return
    creator, name, text = new_key
    actor = current_user.signed_in()
    if actor is None or actor.principal != creator:
        del st.session_state[NEW_KEY]
        return
    with st.container(border=True):
        how = "Swapgate does not store it in clear text, and never shows it again."
        st.html(markup.block(f"<p>The key of {strong(name)}. {escape(how)}</p>"))
        st.code(text, language=None, wrap_lines=True)
        if st.button("I have stored it", key="stored", type="primary"):
            del st.session_state[NEW_KEY]
            st.rerun()


def _ask_limits(before: KeyLimits, form: Form) -> KeyLimits:
    st.html(markup.note("An empty field means no limit."))
    return KeyLimits(**SettingsForm(KeyLimits).ask(before, form.key, advanced=False))


def _ask_opt_outs(before: Iterable[OptOut], form: Form) -> list[OptOut]:
    return st.multiselect(
        "Keep its requests out of",
        list(OPT_OUTS),
        default=sorted(before),
        format_func=OPT_OUTS.__getitem__,
        key=form.key("opt-outs"),
        placeholder="Nothing",
    )


@dialog("Change or revoke a key", Role.ADMIN, "chosen", "edit", width="medium")
def change_key(form: Form, live: Sequence[KeySummary]) -> None:
    """Asks for a key, and then for its limits, its opt-outs or its revocation."""
    by_id = {key.id: key for key in sorted(live, key=lambda key: key.name.casefold())}
    titles = {}
    for id_, summary in by_id.items():
        kind = f"{summary.role.name.lower()} key" if summary.role else "client key"
        titles[id_] = f"{summary.name} · {kind} …{summary.hint}"
    chosen = form.choose(
        "key",
        "Key",
        by_id,
        placeholder="Choose a key, or write a part of its name",
        format_func=lambda id_: titles.get(id_, id_),
    )
    key = by_id.get(chosen or "")
    if key is None:
        return
    acts = {
        "Limits": _change_limits,
        "Opt-outs": _change_opt_outs,
        "Revoke": _revoke,
    }
    names = list(acts) if key.role is None else ["Revoke"]
    act = st.segmented_control(
        "What",
        names,
        default=names[0],
        required=True,
        key=f"act-{key.id}",
    )
    acts[act](key)


def _change_limits(key: KeySummary) -> None:
    """Asks for a key's limits. Fails if another person changed them meanwhile."""
    form = Form(Role.ADMIN, "limit", key.id)
    before = key.limits or KeyLimits()
    st.html(markup.note("Past spending still counts. Routers apply the limits within 2 s."))
    wanted = _ask_limits(before, form)
    form.need(wanted != before, "These are its limits already.")

    def change(now: KeyLimits) -> KeyLimits:
        # Writing all limits would undo another person's change.
        if now != before:
            raise StaleWrite(
                "another person changed this key's limits after this dialog was opened: "
                "close it and open it again to see the limits as they are now"
            )
        return wanted

    done = f"changed the limits of {key.name}."
    form.submit("Set the limits", done, keys.set_limits, key.id, change)


def _change_opt_outs(key: KeySummary) -> None:
    form = Form(Role.ADMIN, "opt-out", key.id)
    st.html(markup.note("Routers apply it within 2 s. Copies that are already stored stay."))
    wanted = _ask_opt_outs(key.opt_outs, form)
    form.need(frozenset(wanted) != key.opt_outs, "These are its opt-outs already.")
    done = f"changed the opt-outs of {key.name}."
    form.submit("Set the opt-outs", done, keys.set_opt_outs, key.id, wanted)


def _revoke(key: KeySummary) -> None:
    """Asks to revoke a key. The person types the key's name."""
    form = Form(Role.ADMIN, "revoke", key.id)
    actor = current_user.signed_in()
    client = "Routers refuse its requests within 2 s. You cannot undo this."
    person = "Its owner can no longer act with it, from the next click or request on."
    form.say(
        f"{strong(key.name)} …{escape(key.hint)}: {escape(person if key.role else client)}"
    )
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
    cells=_client_cells,
    heading="Client keys",
    note="A request's cost counts as soon as it is recorded, within seconds.",
    nothing="Clients of the router send a key. This creates one:",
    fills="swapgate key create CLIENT",
    search=Search(
        "Find a client",
        "Part of its name",
        lambda key: key.name,
        MOST_ROWS,
        "No client has this in its name.",
    ),
    what="keys",
    lists_all="swapgate key list",
)
MANAGERS: Final = ResourceList[KeysView, KeySummary](
    rows=lambda view: view.managers,
    cells=_manager_cells,
    heading="Management keys",
    note="Keys of people and services, with a role in API, command line and dashboard.",
    nothing="There is no management key: only the operator of this machine can act.",
)
PEOPLE: Final = ResourceList[KeysView, PersonView](
    rows=lambda view: view.people,
    cells=_person_cells,
    heading="People",
    note=NOTE,
    nothing=OWN,
    actions=_declare_opener,
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
        _headline(view.clients, view.now.date()),
        escape(labels.date_time(view.now)),
    ),
    actions=_actions,
    parts=(show_new_key, CLIENTS.show, MANAGERS.show, PEOPLE.show, _explain_reach, _spending),
    commands=lambda _: [["key", "list"], ["spending"]],
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
