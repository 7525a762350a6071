"""The dialogs for a provider's keys: add one beside the others, replace or remove one; and for
the kinds that take no key, the commands by which a person signs in.
"""

from datetime import timedelta
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs import account_commands, action_dialogs
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
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


@action_dialogs.dialog("Keys and sign-in", width="medium")
def change_keys(provider: str) -> None:
    """Lists a provider's stored keys, takes another one and removes one. It shows no value."""
    ctx = page_frame.context()
    known = credentials.get_credentials(ctx, provider)
    if known.kind in OAUTH_ENDPOINTS:
        _account(known)
        return
    st.html(html.block(_listed(known)))
    stored = [key.name for key in known.stored]
    act = STORE
    if stored:
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
    name = DEFAULT_KEY_NAME
    if stored:
        chosen = st.selectbox(
            "Which key", [*stored, ANOTHER], key=f"key-name-{provider}",
            format_func=lambda name: name if name == ANOTHER else f"Replace {name}",
        )  # fmt: skip
        name = "" if chosen == ANOTHER else chosen
    if not name:
        typed = st.text_input("Name of the new key", key=f"key-new-{provider}", live=True)
        name = (typed or "").strip()
    typed = st.text_input(
        f"Key of {provider}", type="password", autocomplete="off", key=f"key-{provider}",
        live=True,
    )  # fmt: skip
    value = (typed or "").strip()
    first, hours = False, 0.0
    if name in stored:
        hours = st.number_input(
            "Hours for which the old value stays as second choice", 0.0, MOST_OVERLAP_H, 0.0,
            1.0, format="%g", key=f"overlap-{provider}",
        )  # fmt: skip
    elif stored:
        first = st.checkbox("Try it before the other keys", key=f"first-{provider}")
    st.html(html.note("Stored encrypted and never shown. Routers use it within 2 s."))
    change = CredentialChange(
        value=value, key=name, first=first, overlap=timedelta(hours=hours) if hours else None
    )
    action_dialogs.submit(
        "Store and check",
        key=f"store-{provider}",
        role=Role.ADMIN,
        missing="" if value and name else "A name and the key are needed.",
        act=lambda actor: _put(actor, provider, change),
        done=lambda actor: f"{actor.name} stored the key {name} of {provider}.",
        waits_for=ASKS,
    )


def _put(actor: Actor, provider: str, change: CredentialChange) -> None:
    # What was typed is not kept in the session longer than the click.
    st.session_state.pop(f"key-{provider}", None)
    registry.replace_key(page_frame.context(), actor, provider, change)


def _remove(known: ProviderCredentials) -> None:
    provider = known.name
    name = st.selectbox(
        "Which key", [key.name for key in known.stored], key=f"key-gone-{provider}"
    )
    last = "It is the last one: models of it get no requests until another is stored."
    others = "What was stored is gone for good. The other keys serve on."
    st.html(html.note(others if known.keys > 1 else last))
    typed = st.text_input(f"Write {name} to confirm", key=f"key-sure-{provider}", live=True)
    sure = (typed or "").strip() == name
    action_dialogs.submit(
        "Remove the key",
        key=f"key-remove-{provider}",
        role=Role.ADMIN,
        missing="" if sure else "The button works once the name stands here.",
        act=lambda actor: credentials.remove_credential(
            page_frame.context(), actor, provider, key=name
        ),
        done=lambda actor: f"{actor.name} removed the key {name} of {provider}.",
    )


def _account(known: ProviderCredentials) -> None:
    """Says who is signed in to an account, and how somebody signs in or out."""
    signed = next((key for key in known.stored if key.name == TOKEN_KEY_NAME), None)
    if signed is None:
        st.html(html.block(f"<p>Nobody is signed in for {strong(known.name)}.</p>"))
        account_commands.show([known.name])
        return
    st.html(html.block(f"<p>Signed in: {_stored(signed)}. It is renewed by itself.</p>"))
    action_dialogs.submit(
        "Sign out",
        key=f"sign-out-{known.name}",
        role=Role.ADMIN,
        missing="",
        act=lambda actor: sign_in.sign_out(page_frame.context(), actor, known.name),
        done=lambda actor: (
            f"{actor.name} signed {known.name} out; revoke it at the vendor too."
        ),
    )
