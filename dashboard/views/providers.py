"""The Providers page answers: which models can I reach, with which abilities and prices? It
also adds providers and models, stores keys, and asks a provider whether it works.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialog_forms import Form, Opener, ask_object, dialog, show_openers
from dashboard.dialogs import provider_keys
from dashboard.dialogs.provider_keys import ASKS
from dashboard.text import html, labels, provider_text
from dashboard.text.html import escape, strong
from harness.control.context import Context
from harness.control.providers import checks, discovery, model_lookup, registry
from harness.control.providers.matrix import MatrixRow, build_matrix, load_minute_use
from harness.control.providers.registry import NewProvider
from harness.control.routing import first_route, targets
from harness.control.routing.targets import ProviderChange
from harness.domain.operations.access import Actor, Role
from harness.domain.providers.kinds import ProviderGroup
from harness.domain.providers.oauth_kinds import OAUTH_ENDPOINTS
from harness.domain.providers.probe import ProviderCheck
from harness.domain.routing.target import JsonObject, RequestPatch
from harness.domain.settings import TargetSeed

OUTDATED: Final = "outdated-by-a-move"
UNLISTED: Final = "unlisted-model"
SHOWN: Final = 5
KIND_NOTE: Final = "The kind sets the protocol. A server of your own is vllm, ollama or custom."
OWN_MODEL: Final = (
    "With any of these it is a model of its own: it has its own name, needs its own proof, and "
    "can serve beside the plain one."
)
JSON_FIELDS: Final = (
    ("parameters", "Parameters, as JSON; a client's own value wins", '{"temperature": 0}'),
    ("patch", "Set whatever the client sent, as JSON", '{"store": false}'),
    (
        "format",
        "response_format, instead of the client's, as JSON",
        '{"type": "json_object"}',
    ),
)
# With more providers than these, the page has a search and shows no more at once.
MOST_CARDS: Final = 12


def show() -> None:
    with page_frame.loading("the providers"):
        ctx = page_frame.context()
        rows = build_matrix(ctx)
        checked = checks.load_checks(ctx)
    now = ctx.clock.now()
    st.html(html.title(provider_text.title(rows), escape(labels.date_time(now))))
    page_frame.show_done_message()
    _show_once()
    here = provider_text.configured(rows)
    add = add_provider.opener()
    # Why a card's buttons are off is said once, and not on each card.
    of_cards = _openers(here[0]) if here else []
    show_openers([add], explain=[add, *of_cards])
    if here:
        _cards(_find(provider_text.by_urgency(here)), checked, now)
    else:
        page_frame.show_empty(
            "Add a provider above, or by this command:", "swapgate provider add openai"
        )
    _others(rows)
    page_frame.copy_as_cli(["provider", "matrix"])


def _find(rows: Sequence[MatrixRow]) -> Sequence[MatrixRow]:
    """Lists the providers that somebody looks for, by name, kind or model."""
    if len(rows) <= MOST_CARDS:
        return rows
    wanted = page_frame.search("Find a provider", "Part of its name, kind or of a model")
    found = [
        row
        for row in rows
        if wanted(" ".join((row.provider, row.kind, *(m.model for m in row.models))))
    ]
    shown = f"{min(len(found), MOST_CARDS)} of {labels.plural(len(rows), 'provider')}"
    st.html(html.note(shown if found else "No provider has this in its name, kind or models."))
    return found[:MOST_CARDS]


def _cards(
    rows: Sequence[MatrixRow], checked: Mapping[str, ProviderCheck], now: datetime
) -> None:
    quiet, used = load_minute_use(page_frame.context())
    limits = page_frame.installation().settings.eval_limits
    for row in rows:
        with st.container(border=True):
            parts = (
                provider_text.heading(row),
                provider_text.rates(used.get(row.provider, quiet), limits.get(row.provider)),
                provider_text.last_check(checked.get(row.provider), now),
            )
            st.html(html.block(*parts, kind="sg-provider"))
            _models(row)
            show_openers(_openers(row), explain=())


def _models(row: MatrixRow) -> None:
    shown, others = provider_text.shown_models(row.models)
    if not shown:
        st.html(html.note("No model of it is known yet. Add the one that a route is to use."))
        return
    st.html(html.table(map(provider_text.cells, shown), stacked=True))
    if others:
        with st.expander(f"{labels.plural(len(others), 'more model')} that no route uses"):
            st.html(html.block(f"<p>{escape(', '.join(others))}</p>"))


def _openers(row: MatrixRow) -> list[Opener]:
    name = row.provider
    access = "Sign in or out" if row.group is ProviderGroup.OAUTH else "Keys"
    check, icon = partial(check_now, name), ":material/network_check:"
    return [
        Opener("Check now", icon, check, f"check-{name}", Role.PROPOSER),
        add_model.opener(name),
        provider_keys.change_keys.opener(name, label=access),
        change_address.opener(name),
        remove.opener(name),
    ]


def _others(rows: Sequence[MatrixRow]) -> None:
    here = {row.provider for row in provider_text.configured(rows)}
    kinds = [row for row in rows if row.provider not in here]
    with st.expander(f"{labels.plural(len(kinds), 'more kind')} that could be added"):
        cells = [
            {
                "Kind": escape(row.kind),
                "Group": escape(row.group),
                "Known limitations": escape("; ".join(row.limitations) or "none"),
            }
            for row in kinds
        ]
        st.html(html.table(cells))


@dialog("Add a provider", Role.ADMIN, "new", "add", width="medium")
def add_provider(form: Form) -> None:
    """Asks for kind, name, address and key. What depends on the kind keeps its own value."""
    kind = st.selectbox("Kind", first_route.provider_choices(), key="new-kind", index=None,
                        placeholder="Choose what it speaks")  # fmt: skip
    if kind is None:
        st.html(html.note(KIND_NOTE))
        with st.expander(f"An account to sign in to: {', '.join(OAUTH_ENDPOINTS)}"):
            provider_keys.show_account_commands(list(OAUTH_ENDPOINTS))
        return
    form.about, form.waits_for = kind, ASKS
    name = form.text("name", "Name, which stands before its models, as in NAME/MODEL", kind)
    address = form.text("address", "Address", first_route.usual_address(kind))
    form.need(name and address, "Name and address are needed.")
    key = form.text("key", "Key", type="password", autocomplete="off")
    st.html(html.note("Stored encrypted and never shown. Leave it empty where none is needed."))
    wanted = NewProvider(kind, name, address, key)
    done = f"added {name}. Its card says what the check found."
    form.submit("Add and check", done, registry.add_provider, wanted)


@dialog("Add a model", Role.PROPOSER, "model", "add", width="medium")
def add_model(form: Form, provider: str) -> None:
    """Asks for a model: one that the provider lists or the catalogue knows, or a name."""
    form.waits_for = ASKS
    offers = model_lookup.list_configured_offers(page_frame.context())
    named = [name for name, _ in offers if name.startswith(f"{provider}/")]
    models = [name.removeprefix(f"{provider}/") for name in named]
    model = form.choose_or_type(
        "of", f"Model of {provider}", models, need="Choose a model first.",
        placeholder="Choose one, or write its name",
    )  # fmt: skip
    known = f"{len(models):,} models are known." if models else "No model of it is known yet."
    st.html(html.note(f"{known} A model in this list serves nobody until a route names it."))
    if st.button("Ask for its list of models", key=f"list-{provider}", type="tertiary",
                 disabled=bool(current_user.why_not(Role.PROPOSER))):  # fmt: skip
        with st.spinner(f"{ASKS} …"):
            current_user.attempt(
                lambda actor: _read_list(actor, provider),
                lambda _: f"{provider} listed its models.",
            )
    seed = TargetSeed(provider, model, *_ask_request(form))
    # It has a name of its own once it is chosen.
    name = seed.target.name if model else ""
    form.submit("Add the model", f"added {name}.", _add_model, seed)


def _read_list(actor: Actor, provider: str) -> None:
    discovery.discover_models(page_frame.context(), actor, provider)
    add_model.reopen(provider)


def _ask_request(form: Form) -> tuple[JsonObject, RequestPatch]:
    """Asks what is sent to a model beside the client's request: its parameters, and a change of
    the request.
    """
    with st.expander("Parameters, and changes of each request (optional)"):
        st.html(html.note(OWN_MODEL))
        found = []
        for part, label, example in JSON_FIELDS:
            value, wrong = ask_object(label, key=form.key(part), example=example)
            form.need(not wrong, wrong)
            found.append(value)
        addendum = st.text_area("Text appended to the system message", key=form.key("addendum"))
    own, forced, response_format = found
    return own, RequestPatch(forced, (addendum or "").strip(), response_format or None)


def _add_model(ctx: Context, actor: Actor, seed: TargetSeed) -> None:
    added = targets.add_target(ctx, actor, seed)
    if unlisted := discovery.describe_unlisted(ctx, actor, added):
        st.session_state[UNLISTED] = (added.name, unlisted)


@dialog("Change the address", Role.ADMIN, "base", "link", width="medium")
def change_address(form: Form, provider: str) -> None:
    before, form.waits_for = registry.get_provider(page_frame.context(), provider), ASKS
    address = form.text(
        "address", f"Address of {provider}", before.api_base, need="An address is needed."
    )
    form.need(address != before.api_base, "This is its address already.")
    used = ", ".join(before.routes[:SHOWN]) + (" …" if len(before.routes) > SHOWN else "")
    goes_on = (
        f"Routes that use it ({used}) go on with the new address at once; what was measured "
        "before is no proof for them any more."
    )
    st.html(html.note(goes_on if before.routes else "No route uses it."))
    done = f"moved {provider} to {address}."
    form.submit("Change and check", done, _change_address, provider, address, form.reason())


def _change_address(
    ctx: Context, actor: Actor, provider: str, address: str, reason: str
) -> None:
    change = ProviderChange(api_base=address, reason=reason)
    moved = registry.change_provider(ctx, actor, provider, change, create=False)
    if moved.outdated:
        st.session_state[OUTDATED] = (provider, ", ".join(moved.outdated))
    checks.check_provider(ctx, actor, provider)


def _show_once() -> None:
    """Shows, once, what waits for new proof since a provider was moved, and what the provider
    says of the model that was just added.
    """
    for key, words in (
        (OUTDATED, "{} was moved: waiting for new proof."),
        (UNLISTED, "{} is added, and may answer nothing:"),
    ):
        name, why = st.session_state.pop(key, ("", ""))
        if why:
            st.html(html.banner(words.format(name), why))


@dialog("Remove the provider", Role.ADMIN, "remove", "delete", label="Remove")
def remove(form: Form, provider: str) -> None:
    """Asks for the provider's name, so that no stray click removes one."""
    form.say(
        f"{strong(provider)} and its stored keys are removed on every router within 2 s. This "
        "is refused while a route, a proposal, a shadow or a judge uses it."
    )
    form.confirm(provider)
    form.submit("Remove it", f"removed {provider}.", registry.remove_provider, provider)


def check_now(provider: str) -> None:
    """Asks the provider at once, without a dialog: it changes nothing."""
    with st.spinner(f"{ASKS} …"):
        current_user.attempt(
            lambda actor: checks.check_provider(page_frame.context(), actor, provider),
            lambda _: f"{provider} was asked. Its card says what was found.",
        )


if __name__ == "__main__":
    page_frame.show_page("The providers", show)
