"""The dialogs of the Providers page.

No dialog shows a stored key again. After a new provider, address or key, Swapproof checks the
provider, and its card shows the findings.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import Form, Opener, SettingsForm, dialog
from dashboard.markup import escape, rich, strong
from dashboard.operation_dialogs import operation_opener
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
from harness.providers.registry.operations import SET_PRICE
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import ProviderSettings, Target

SPINNER_TEXT: Final = "Asking the provider, for 20 s at most"
STORE_LABEL = "Add or replace"
REMOVE_LABEL = "Remove"
ANOTHER_KEY: Final = "Add another key"
MOST_OVERLAP_H: Final = credentials.LONGEST_OVERLAP / timedelta(hours=1)
OUTDATED_KEY: Final = "outdated-by-a-move"
UNLISTED: Final = "unlisted-model"
MOST_SHOWN_ROUTES: Final = 5
MOST_PRICE_BUTTONS: Final = 3
KIND_NOTE: Final = "The kind sets the protocol. For your own server: vllm, ollama or custom."
PARAMETERS_NOTE: Final = "`swapproof model add` adds a model with its own parameters."


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
    form.spinner_text = SPINNER_TEXT
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
    done_text = f"added {name}. Its card shows what the check found."
    form.submit(
        "Add and check",
        done_text,
        registered_providers.add_provider,
        name or kind,
        change,
    )


@dialog("Add a model", Role.PROPOSER, "model", "add", width="medium")
def add_model(form: Form, provider: str) -> None:
    """Asks for a model of a provider, from its list or by name."""
    form.spinner_text = SPINNER_TEXT
    offers = named_models.list_configured_offers(page_frame.context())
    offered_names = [name for name, _ in offers if name.startswith(f"{provider}/")]
    models = [name.removeprefix(f"{provider}/") for name in offered_names]
    model = form.choose_or_type(
        "of",
        f"Model of {provider}",
        models,
        need="Choose a model first.",
        placeholder="Choose one, or write its name",
    )
    count_text = f"{len(models):,} models are known." if models else "No model is known yet."
    st.html(
        markup.note(f"{count_text} It serves only where a route uses it. {PARAMETERS_NOTE}")
    )
    if st.button(
        "Ask for its list of models",
        key=f"list-{provider}",
        type="tertiary",
        disabled=bool(current_user.why_not(Role.PROPOSER)),
    ):
        with st.spinner(f"{SPINNER_TEXT} …"):
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
    target = targets.add_target(ctx, actor, Target.from_name(name))
    if warning := named_models.describe_unlisted(ctx, actor, target):
        st.session_state[UNLISTED] = (target.name, warning)


@dialog("Change the address", Role.ADMIN, "base", "link", width="medium")
def change_address(form: Form, provider: str) -> None:
    """Asks for a new address. The routes then need new proof, because verdicts hold only for
    the old address.
    """
    provider_view = registered_providers.get_provider(page_frame.context(), provider)
    form.spinner_text = SPINNER_TEXT
    address = form.text(
        "address",
        f"Address of {provider}",
        provider_view.api_base,
        need="An address is needed.",
    )
    other_settings = SettingsForm(ProviderSettings).ask(provider_view, form.key, advanced=False)
    settings = {"api_base": address, **other_settings}
    is_changed = any(getattr(provider_view, name) != value for name, value in settings.items())
    form.need(is_changed, "This is its address already.")
    route_names = ", ".join(provider_view.routes[:MOST_SHOWN_ROUTES]) + (
        " …" if len(provider_view.routes) > MOST_SHOWN_ROUTES else ""
    )
    consequence = (
        f"Routes that use it ({route_names}) use the new address at once, and verdicts on the "
        "old address are no longer proof for them."
    )
    st.html(markup.note(consequence if provider_view.routes else "No route uses it."))
    done_text = f"moved {provider} to {address}."
    form.submit(
        "Change and check",
        done_text,
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
    """Moves the provider and checks it. Keeps the routes that need new proof, for a banner."""
    change = ProviderChange(settings=settings, reason=reason)
    result = registered_providers.change_provider(ctx, actor, provider, change, create=False)
    if result.outdated:
        st.session_state[OUTDATED_KEY] = (provider, ", ".join(result.outdated))
    registered_providers.check_provider(ctx, actor, provider)


def show_once(_: object) -> None:
    """Shows the remarks of the last action, once."""
    for key, heading in (
        (OUTDATED_KEY, "{} was moved: waiting for new proof."),
        (UNLISTED, "{} is added, but may not answer:"),
    ):
        name, text = st.session_state.pop(key, ("", ""))
        if text:
            st.html(markup.banner(heading.format(name), text))


def price_openers(unpriced: Iterable[str]) -> list[Opener]:
    """Builds the buttons that set missing prices.

    Args:
        unpriced: names `provider/model`; the first MOST_PRICE_BUTTONS get a button.
    """
    return [operation_opener(SET_PRICE, name) for name in [*unpriced][:MOST_PRICE_BUTTONS]]


def check_now(provider: str) -> None:
    """Checks a provider, and shows the result on its card."""
    with st.spinner(f"{SPINNER_TEXT} …"):
        current_user.attempt(
            lambda actor: registered_providers.check_provider(
                page_frame.context(), actor, provider
            ),
            lambda _: f"Checked {provider}. Its card shows what the check found.",
        )


def show_account_commands(kinds: Sequence[str]) -> None:
    """Shows the commands for an account's sign-in, which waits in a terminal for a code from a
    browser.
    """
    for kind in kinds:
        lines = f"oauth:\n  {kind}:\n    client_id: YOUR-CLIENT-ID"
        # Wrapped, because a keyboard cannot scroll code sideways on a phone.
        st.code(lines, language="yaml", wrap_lines=True)
        st.code(
            f"swapproof provider key login {kind}",
            language=None,
            wrap_lines=True,
        )
    link = markup.docs_link("how-to/credentials", "Signing in")
    words = (
        "Write the lines into swapproof.yaml, with the id of your application at the vendor. "
        "Then run the command on Swapproof's machine: it shows an address and a code. Open "
        "the address in any browser and type the code."
    )
    st.html(markup.block(f'<p class="note">{escape(words)} {link}</p>'))


@dialog("Keys and sign-in", Role.ADMIN, "set", "key", width="medium")
def change_keys(_form: Form, provider: str) -> None:
    """Shows the provider's keys in the order of use, and asks to store or remove one."""
    provider_credentials = credentials.get_credentials(page_frame.context(), provider)
    if provider_credentials.kind in OAUTH_ENDPOINTS:
        _show_account(provider_credentials)
        return
    st.html(markup.block(_render_keys(provider_credentials)))
    action = STORE_LABEL
    if provider_credentials.stored:
        action = st.segmented_control(
            "What",
            [STORE_LABEL, REMOVE_LABEL],
            default=STORE_LABEL,
            required=True,
            key=f"keys-act-{provider}",
        )
    if action == REMOVE_LABEL:
        _ask_removal(provider_credentials)
    else:
        _ask_key(provider_credentials)


def _render_keys(provider_credentials: ProviderCredentials) -> str:
    if not provider_credentials.keys:
        empty_text = (
            "It has no key, so its models get no requests."
            if provider_credentials.lacks_key
            else "No key."
        )
        return f"<p>{escape(empty_text)}</p>"
    rows = "".join(f"<li>{_render_key(key)}</li>" for key in provider_credentials.stored)
    rows += "".join(
        f"<li>{escape(variable.text)}</li>" for variable in provider_credentials.variables
    )
    fallback_note = "If a key is refused or out of quota, the next key serves meanwhile."
    keys_html = (
        f"<p>Keys, in the order in which they are tried. {escape(fallback_note)}</p>"
        f"<ol>{rows}</ol>"
    )
    if provider_credentials.variables:
        keys_html += markup.note(f"{credentials.describe_variables(provider_credentials)}.")
    return keys_html


def _render_key(key: StoredKeyView) -> str:
    until_text = f", until {labels.date_time(key.expires_at)}" if key.expires_at else ""
    details = f"by {key.created_by}, {labels.date_time(key.updated_at)}{until_text}"
    return f'{strong(key.name)} <span class="note">{rich(details)}</span>'


def _ask_key(provider_credentials: ProviderCredentials) -> None:
    """Asks for a new key, or for a new value of a stored key.

    The old value may stay as second choice for some hours, so that no request fails during a
    rotation.
    """
    provider = provider_credentials.name
    stored_names = [key.name for key in provider_credentials.stored]
    form = Form(Role.ADMIN, "key", provider, spinner_text=SPINNER_TEXT)
    name = DEFAULT_KEY_NAME
    if stored_names:
        name = st.selectbox(
            "Which key",
            [*stored_names, ANOTHER_KEY],
            key=form.key("name"),
            format_func=lambda name: name if name == ANOTHER_KEY else f"Replace {name}",
        )
    if name == ANOTHER_KEY:
        name = form.text("new", "Name of the new key")
    value = form.text(
        "value",
        f"Key of {provider}",
        type="password",
        autocomplete="off",
    )
    form.need(value and name, "A name and the key are needed.")
    is_first = False
    overlap_h = 0.0
    if name in stored_names:
        overlap_h = st.number_input(
            "Hours for which the old value stays as second choice",
            0.0,
            MOST_OVERLAP_H,
            0.0,
            1.0,
            format="%g",
            key=form.key("overlap"),
        )
    elif stored_names:
        is_first = st.checkbox("Try it before the other keys", key=form.key("first"))
    st.html(markup.note("Stored encrypted and never shown. Routers use it within 2 s."))
    overlap = timedelta(hours=overlap_h) if overlap_h else None
    change = CredentialChange(
        value=value,
        key=name,
        first=is_first,
        overlap=overlap,
    )
    value_key = form.key("value")

    def store(ctx: Context, actor: Actor) -> None:
        # The session does not keep the typed key after the click.
        st.session_state.pop(value_key, None)
        registered_providers.replace_key(ctx, actor, provider, change)

    form.submit("Store and check", f"stored the key {name} of {provider}.", store)


def _ask_removal(provider_credentials: ProviderCredentials) -> None:
    provider = provider_credentials.name
    form = Form(Role.ADMIN, "key-gone", provider_credentials.name)
    names = [key.name for key in provider_credentials.stored]
    name = st.selectbox("Which key", names, key=form.key("name"))
    last_key_note = (
        "It is the last key: without another, the provider's models get no requests."
    )
    other_keys_note = "This deletes the stored key for good. The other keys continue to serve."
    st.html(markup.note(other_keys_note if provider_credentials.keys > 1 else last_key_note))
    form.confirm(name)
    done_text = f"removed the key {name} of {provider}."
    form.submit(
        "Remove the key",
        done_text,
        credentials.remove_credential,
        provider,
        key=name,
    )


def _show_account(provider_credentials: ProviderCredentials) -> None:
    """Shows the sign-in of an account, or the commands that begin one."""
    form = Form(Role.ADMIN, "sign-out", provider_credentials.name)
    token = next(
        (key for key in provider_credentials.stored if key.name == TOKEN_KEY_NAME), None
    )
    if token is None:
        form.say(f"There is no sign-in for {strong(provider_credentials.name)}.")
        show_account_commands([provider_credentials.name])
        return
    form.say(f"Signed in: {_render_key(token)}. Swapproof renews it automatically.")
    done_text = f"signed {provider_credentials.name} out; revoke the access at the vendor, too."
    form.submit("Sign out", done_text, sign_in.sign_out, provider_credentials.name)
