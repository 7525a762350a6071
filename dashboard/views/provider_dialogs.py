"""The dialogs of the Providers page.

A stored key is never shown again. Adding a provider, a new address and a new key are followed
by a check, whose findings the provider's card shows.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import Form, SettingsForm, dialog
from dashboard.markup import escape, strong
from harness.frame.people.access import Actor, Role
from harness.operations.context import Context
from harness.proposals import first_route
from harness.providers.oauth import OAUTH_ENDPOINTS, TOKEN_KEY_NAME
from harness.providers.registry import (
    credentials,
    named_models,
    registered_providers,
    sign_in,
    targets,
)
from harness.providers.registry.credentials import (
    DEFAULT_KEY_NAME,
    CredentialChange,
    ProviderCredentials,
    StoredKeyView,
)
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import ProviderSettings, Target

ASKS: Final = "Asking the provider, for 20 s at most"
STORE = "Add or replace"
REMOVE = "Remove"
ANOTHER: Final = "Add another key"
MOST_OVERLAP_H: Final = credentials.LONGEST_OVERLAP / timedelta(hours=1)
OUTDATED: Final = "outdated-by-a-move"
UNLISTED: Final = "unlisted-model"
SHOWN: Final = 5
KIND_NOTE: Final = "The kind sets the protocol. For your own server: vllm, ollama or custom."
PARAMETERS: Final = "`swapgate model add` adds a model with its own parameters."


@dialog("Add a provider", Role.ADMIN, "new", "add", width="medium")
def add_provider(form: Form) -> None:
    """Asks for a provider of a kind. Kinds with an account's sign-in are set up in a terminal
    instead.
    """
    kind = st.selectbox(
        "Kind",
        first_route.list_provider_choices(),
        key="new-kind",
        index=None,
        placeholder="Choose the kind",
    )
    if kind is None:
        st.html(markup.note(KIND_NOTE))
        with st.expander(f"With an account's sign-in: {', '.join(OAUTH_ENDPOINTS)}"):
            show_account_commands(list(OAUTH_ENDPOINTS))
        return
    form.subject_id = kind
    form.spinner_text = ASKS
    name = form.text("name", "Name, which precedes its models, as in NAME/MODEL", kind)
    address = form.text("address", "Address", first_route.find_usual_address(kind))
    form.need(name and address, "Name and address are needed.")
    key = form.text(
        "key",
        "Key",
        type="password",
        autocomplete="off",
    )
    st.html(
        markup.note("Stored encrypted and never shown. Leave it empty if no key is needed.")
    )
    change = CredentialChange(kind, {"api_base": address} if address else {}, value=key or None)
    done = f"added {name}. Its card shows what the check found."
    form.submit(
        "Add and check",
        done,
        registered_providers.add_provider,
        name or kind,
        change,
    )


@dialog("Add a model", Role.PROPOSER, "model", "add", width="medium")
def add_model(form: Form, provider: str) -> None:
    """Asks for a model of a provider, from its list or by name."""
    form.spinner_text = ASKS
    offers = named_models.list_configured_offers(page_frame.context())
    named = [name for name, _ in offers if name.startswith(f"{provider}/")]
    models = [name.removeprefix(f"{provider}/") for name in named]
    model = form.choose_or_type(
        "of",
        f"Model of {provider}",
        models,
        need="Choose a model first.",
        placeholder="Choose one, or write its name",
    )
    known = f"{len(models):,} models are known." if models else "No model is known yet."
    st.html(markup.note(f"{known} It serves only where a route uses it. {PARAMETERS}"))
    if st.button(
        "Ask for its list of models",
        key=f"list-{provider}",
        type="tertiary",
        disabled=bool(current_user.why_not(Role.PROPOSER)),
    ):
        with st.spinner(f"{ASKS} …"):
            current_user.attempt(
                lambda actor: _read_list(actor, provider),
                lambda _: f"{provider} listed its models.",
            )
    name = f"{provider}/{model}"
    form.submit("Add the model", f"added {name}.", _add_model, name)


def _read_list(actor: Actor, provider: str) -> None:
    """Asks the provider for its list of models, and opens the dialog again."""
    named_models.discover_models(page_frame.context(), actor, provider)
    add_model.reopen(provider)


def _add_model(
    ctx: Context,
    actor: Actor,
    name: str,
) -> None:
    added = targets.add_target(ctx, actor, Target.from_name(name))
    if unlisted := named_models.describe_unlisted(ctx, actor, added):
        st.session_state[UNLISTED] = (added.name, unlisted)


@dialog("Change the address", Role.ADMIN, "base", "link", width="medium")
def change_address(form: Form, provider: str) -> None:
    """Asks for a new address. Verdicts on the old address are then no proof for the routes."""
    before = registered_providers.get_provider(page_frame.context(), provider)
    form.spinner_text = ASKS
    address = form.text(
        "address",
        f"Address of {provider}",
        before.api_base,
        need="An address is needed.",
    )
    others = SettingsForm(ProviderSettings).ask(before, form.key, advanced=False)
    settings = {"api_base": address, **others}
    changed = any(getattr(before, name) != value for name, value in settings.items())
    form.need(changed, "This is its address already.")
    used = ", ".join(before.routes[:SHOWN]) + (" …" if len(before.routes) > SHOWN else "")
    goes_on = (
        f"Routes that use it ({used}) use the new address at once, and verdicts on the old "
        "address are no longer proof for them."
    )
    st.html(markup.note(goes_on if before.routes else "No route uses it."))
    done = f"moved {provider} to {address}."
    form.submit(
        "Change and check",
        done,
        _change_address,
        provider,
        settings,
        form.reason(),
    )


def _change_address(
    ctx: Context,
    actor: Actor,
    provider: str,
    settings: Mapping[str, object],
    reason: str,
) -> None:
    """Moves the provider and checks it. Keeps which routes need new proof, for a banner."""
    change = ProviderChange(settings=settings, reason=reason)
    moved = registered_providers.change_provider(ctx, actor, provider, change, create=False)
    if moved.outdated:
        st.session_state[OUTDATED] = (provider, ", ".join(moved.outdated))
    registered_providers.check_provider(ctx, actor, provider)


def show_once(_: object) -> None:
    """Shows the remarks of the last action, once."""
    for key, words in (
        (OUTDATED, "{} was moved: waiting for new proof."),
        (UNLISTED, "{} is added, but may not answer:"),
    ):
        name, why = st.session_state.pop(key, ("", ""))
        if why:
            st.html(markup.banner(words.format(name), why))


def check_now(provider: str) -> None:
    """Checks a provider, and shows the result on its card."""
    with st.spinner(f"{ASKS} …"):
        current_user.attempt(
            lambda actor: registered_providers.check_provider(
                page_frame.context(), actor, provider
            ),
            lambda _: f"Checked {provider}. Its card shows what the check found.",
        )


def show_account_commands(kinds: Sequence[str]) -> None:
    """Shows commands: a sign-in waits in a terminal for a code from a browser."""
    for kind in kinds:
        lines = f"oauth:\n  {kind}:\n    client_id: YOUR-CLIENT-ID"
        # Wrapped: a keyboard cannot scroll code sideways on a phone.
        st.code(lines, language="yaml", wrap_lines=True)
        st.code(
            f"swapgate provider key login {kind}",
            language=None,
            wrap_lines=True,
        )
    link = markup.docs_link("how-to/credentials", "Signing in")
    words = (
        "Write the lines into swapgate.yaml, with the id of your application at the vendor. "
        "Then run the command on Swapgate's machine: it shows an address and a code. Open "
        "the address in any browser and type the code."
    )
    st.html(markup.block(f'<p class="note">{escape(words)} {link}</p>'))


@dialog("Keys and sign-in", Role.ADMIN, "set", "key", width="medium")
def change_keys(_form: Form, provider: str) -> None:
    """Shows the provider's keys in the order of use, and asks to store or remove one."""
    known = credentials.get_credentials(page_frame.context(), provider)
    if known.kind in OAUTH_ENDPOINTS:
        _account(known)
        return
    st.html(markup.block(_listed(known)))
    act = STORE
    if known.stored:
        act = st.segmented_control(
            "What",
            [STORE, REMOVE],
            default=STORE,
            required=True,
            key=f"keys-act-{provider}",
        )
    if act == REMOVE:
        _remove(known)
    else:
        _store(known)


def _listed(known: ProviderCredentials) -> str:
    if not known.keys:
        lack = "It has no key, so its models get no requests." if known.lacks_key else "No key."
        return f"<p>{escape(lack)}</p>"
    rows = "".join(f"<li>{_stored(key)}</li>" for key in known.stored)
    rows += "".join(f"<li>{escape(variable.text)}</li>" for variable in known.variables)
    first = "If a key is refused or out of quota, the next key serves meanwhile."
    listed = (
        f"<p>Keys, in the order in which they are tried. {escape(first)}</p><ol>{rows}</ol>"
    )
    if known.variables:
        listed += markup.note(f"{credentials.describe_variables(known)}.")
    return listed


def _stored(key: StoredKeyView) -> str:
    until = f", until {labels.date_time(key.expires_at)}" if key.expires_at else ""
    by = f"by {key.created_by}, {labels.date_time(key.updated_at)}{until}"
    return f'{strong(key.name)} <span class="note">{escape(by)}</span>'


def _store(known: ProviderCredentials) -> None:
    """Asks for a key: a new one, or another value of a stored one.

    The old value may stay as second choice for some hours, so that a rotation fails no request.
    """
    provider = known.name
    stored = [key.name for key in known.stored]
    form = Form(Role.ADMIN, "key", provider, spinner_text=ASKS)
    name = DEFAULT_KEY_NAME
    if stored:
        name = st.selectbox(
            "Which key",
            [*stored, ANOTHER],
            key=form.key("name"),
            format_func=lambda name: name if name == ANOTHER else f"Replace {name}",
        )
    if name == ANOTHER:
        name = form.text("new", "Name of the new key")
    value = form.text(
        "value",
        f"Key of {provider}",
        type="password",
        autocomplete="off",
    )
    form.need(value and name, "A name and the key are needed.")
    first = False
    hours = 0.0
    if name in stored:
        hours = st.number_input(
            "Hours for which the old value stays as second choice",
            0.0,
            MOST_OVERLAP_H,
            0.0,
            1.0,
            format="%g",
            key=form.key("overlap"),
        )
    elif stored:
        first = st.checkbox("Try it before the other keys", key=form.key("first"))
    st.html(markup.note("Stored encrypted and never shown. Routers use it within 2 s."))
    overlap = timedelta(hours=hours) if hours else None
    change = CredentialChange(
        value=value,
        key=name,
        first=first,
        overlap=overlap,
    )
    typed = form.key("value")

    def store(ctx: Context, actor: Actor) -> None:
        # The session does not keep the typed key after the click.
        st.session_state.pop(typed, None)
        registered_providers.replace_key(ctx, actor, provider, change)

    form.submit("Store and check", f"stored the key {name} of {provider}.", store)


def _remove(known: ProviderCredentials) -> None:
    provider = known.name
    form = Form(Role.ADMIN, "key-gone", known.name)
    names = [key.name for key in known.stored]
    name = st.selectbox("Which key", names, key=form.key("name"))
    last = "It is the last key: without another, the provider's models get no requests."
    others = "This deletes the stored key for good. The other keys continue to serve."
    st.html(markup.note(others if known.keys > 1 else last))
    form.confirm(name)
    done = f"removed the key {name} of {provider}."
    form.submit(
        "Remove the key",
        done,
        credentials.remove_credential,
        provider,
        key=name,
    )


def _account(known: ProviderCredentials) -> None:
    """Shows the sign-in of an account, or the commands that begin one."""
    form = Form(Role.ADMIN, "sign-out", known.name)
    signed = next((key for key in known.stored if key.name == TOKEN_KEY_NAME), None)
    if signed is None:
        form.say(f"There is no sign-in for {strong(known.name)}.")
        show_account_commands([known.name])
        return
    form.say(f"Signed in: {_stored(signed)}. Swapgate renews it automatically.")
    done = f"signed {known.name} out; revoke the access at the vendor, too."
    form.submit("Sign out", done, sign_in.sign_out, known.name)
