"""The dialog for a provider's keys: add one beside the others, replace or remove one; and for
the kinds that take no key, the commands by which a person signs in.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialog_forms import Form, dialog
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.context import Context
from harness.control.providers import credentials, registry, sign_in
from harness.control.providers.credentials import (
    DEFAULT_KEY_NAME,
    CredentialChange,
    ProviderCredentials,
    StoredKeyView,
)
from harness.domain.operations.access import Actor, Role
from harness.domain.providers.oauth_kinds import OAUTH_ENDPOINTS
from harness.domain.providers.oauth_tokens import TOKEN_KEY_NAME

ASKS: Final = "Asking the provider, for 20 s at most"
STORE, REMOVE = "Add or replace", "Remove"
ANOTHER: Final = "Add another key"
MOST_OVERLAP_H: Final = credentials.LONGEST_OVERLAP / timedelta(hours=1)


def show_account_commands(kinds: Sequence[str]) -> None:
    """Shows the commands by which people sign in to accounts of these kinds at a terminal,
    which waits while they type a code elsewhere.
    """
    for kind in kinds:
        lines = f"oauth:\n  {kind}:\n    client_id: YOUR-CLIENT-ID"
        # Wrapped: what scrolls sideways on a phone cannot be reached by keyboard.
        st.code(lines, language="yaml", wrap_lines=True)
        st.code(f"swapgate provider key login {kind}", language=None, wrap_lines=True)
    link = html.docs_link("how-to/credentials", "Signing in")
    words = (
        "Write the lines into swapgate.yaml, with the id of your application at the vendor. "
        "Then run the command on Swapgate's machine: it shows an address and a code, which you "
        "type in a browser anywhere."
    )
    st.html(html.block(f'<p class="note">{escape(words)} {link}</p>'))


@dialog("Keys and sign-in", Role.ADMIN, "set", "key", width="medium")
def change_keys(_form: Form, provider: str) -> None:
    """Lists a provider's stored keys, takes another one and removes one. It shows no value."""
    known = credentials.get_credentials(page_frame.context(), provider)
    if known.kind in OAUTH_ENDPOINTS:
        _account(known)
        return
    st.html(html.block(_listed(known)))
    act = STORE
    if known.stored:
        act = st.segmented_control(
            "What", [STORE, REMOVE], default=STORE, required=True, key=f"keys-act-{provider}"
        )
    if act == REMOVE:
        _remove(known)
    else:
        _store(known)


def _listed(known: ProviderCredentials) -> str:
    """Names the keys in the order in which they are tried, as HTML."""
    if not known.keys:
        lack = "It has no key, so its models get no requests." if known.lacks_key else "No key."
        return f"<p>{escape(lack)}</p>"
    rows = "".join(f"<li>{_stored(key)}</li>" for key in known.stored)
    of_environment = known.keys - len(known.stored)
    if of_environment:
        rows += f"<li>{labels.plural(of_environment, 'key')} of the environment</li>"
    first = "A key that is refused or out of quota rests while the next one serves."
    return f"<p>Keys, in the order in which they are tried. {escape(first)}</p><ol>{rows}</ol>"


def _stored(key: StoredKeyView) -> str:
    until = f", until {labels.date_time(key.expires_at)}" if key.expires_at else ""
    by = f"by {key.created_by}, {labels.date_time(key.updated_at)}{until}"
    return f'{strong(key.name)} <span class="note">{escape(by)}</span>'


def _store(known: ProviderCredentials) -> None:
    provider, stored = known.name, [key.name for key in known.stored]
    form, name = Form(Role.ADMIN, "key", provider, waits_for=ASKS), DEFAULT_KEY_NAME
    if stored:
        name = st.selectbox(
            "Which key", [*stored, ANOTHER], key=form.key("name"),
            format_func=lambda name: name if name == ANOTHER else f"Replace {name}",
        )  # fmt: skip
    if name == ANOTHER:
        name = form.text("new", "Name of the new key")
    value = form.text("value", f"Key of {provider}", type="password", autocomplete="off")
    form.need(value and name, "A name and the key are needed.")
    first, hours = False, 0.0
    if name in stored:
        hours = st.number_input(
            "Hours for which the old value stays as second choice", 0.0, MOST_OVERLAP_H, 0.0,
            1.0, format="%g", key=form.key("overlap"),
        )  # fmt: skip
    elif stored:
        first = st.checkbox("Try it before the other keys", key=form.key("first"))
    st.html(html.note("Stored encrypted and never shown. Routers use it within 2 s."))
    overlap = timedelta(hours=hours) if hours else None
    change = CredentialChange(value=value, key=name, first=first, overlap=overlap)
    typed = form.key("value")

    def store(ctx: Context, actor: Actor) -> None:
        # What was typed is not kept in the session longer than the click.
        st.session_state.pop(typed, None)
        registry.replace_key(ctx, actor, provider, change)

    form.submit("Store and check", f"stored the key {name} of {provider}.", store)


def _remove(known: ProviderCredentials) -> None:
    provider, form = known.name, Form(Role.ADMIN, "key-gone", known.name)
    names = [key.name for key in known.stored]
    name = st.selectbox("Which key", names, key=form.key("name"))
    last = "It is the last one: models of it get no requests until another is stored."
    others = "What was stored is gone for good. The other keys serve on."
    st.html(html.note(others if known.keys > 1 else last))
    form.confirm(name)
    done = f"removed the key {name} of {provider}."
    form.submit("Remove the key", done, credentials.remove_credential, provider, key=name)


def _account(known: ProviderCredentials) -> None:
    """Says who is signed in to an account, and how somebody signs in or out."""
    form = Form(Role.ADMIN, "sign-out", known.name)
    signed = next((key for key in known.stored if key.name == TOKEN_KEY_NAME), None)
    if signed is None:
        form.say(f"Nobody is signed in for {strong(known.name)}.")
        show_account_commands([known.name])
        return
    form.say(f"Signed in: {_stored(signed)}. It is renewed by itself.")
    done = f"signed {known.name} out; revoke it at the vendor too."
    form.submit("Sign out", done, sign_in.sign_out, known.name)
