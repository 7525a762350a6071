"""The Providers page's dialogs add a provider, which is asked at once, add a model with
what is sent to it, move a provider to another address, and remove it.
"""

from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialogs import account_commands, action_dialogs
from dashboard.dialogs.suite_fields import ask_object
from dashboard.text import html
from dashboard.text.html import strong
from harness.control.providers import checks, discovery, model_lookup, registry
from harness.control.providers.registry import NewProvider, ProviderChange
from harness.control.routing import first_route, targets
from harness.domain.operations.access import Actor, Role
from harness.domain.providers.oauth_kinds import OAUTH_ENDPOINTS
from harness.domain.routing.target import JsonObject, RequestPatch
from harness.domain.settings import TargetSeed

OUTDATED: Final = "outdated-by-a-move"
UNLISTED: Final = "unlisted-model"
SHOWN: Final = 5
ASKS: Final = "Asking the provider, for 20 s at most"


@action_dialogs.dialog("Add a provider", width="medium")
def add_provider() -> None:
    """Asks for kind, name, address and key. What depends on the kind keeps its own value."""
    kind = st.selectbox("Kind", first_route.provider_choices(), key="new-kind", index=None,
                        placeholder="Choose what it speaks")  # fmt: skip
    if kind is None:
        st.html(
            html.note(
                "The kind sets the protocol. A server of your own is vllm, ollama or custom."
            )
        )
        with st.expander(f"An account to sign in to: {', '.join(OAUTH_ENDPOINTS)}"):
            account_commands.show(list(OAUTH_ENDPOINTS))
        return
    name = st.text_input(
        "Name, which stands before its models, as in NAME/MODEL",
        kind, key=f"new-name-{kind}", live=True,
    )  # fmt: skip
    address = st.text_input(
        "Address", first_route.usual_address(kind), key=f"new-address-{kind}", live=True
    )
    key = st.text_input(
        "Key", type="password", autocomplete="off", key=f"new-key-{kind}", live=True
    )
    st.html(html.note("Stored encrypted and never shown. Leave it empty where none is needed."))
    name, address = (name or "").strip(), (address or "").strip()
    wanted = NewProvider(kind, name, address, (key or "").strip())
    action_dialogs.submit(
        "Add and check",
        key="new-provider",
        role=Role.ADMIN,
        missing="" if name and address else "Name and address are needed.",
        act=lambda actor: registry.add_provider(page_frame.context(), actor, wanted),
        done=lambda actor: f"{actor.name} added {name}. Its card says what the check found.",
        waits_for=ASKS,
    )


@action_dialogs.dialog("Add a model", width="medium")
def add_model(provider: str) -> None:
    """Asks for a model: one that the provider lists or the catalogue knows, or a name."""
    ctx = page_frame.context()
    offers = model_lookup.list_configured_offers(ctx)
    named = [name for name, _ in offers if name.startswith(f"{provider}/")]
    models = [name.removeprefix(f"{provider}/") for name in named]
    model = st.selectbox(
        f"Model of {provider}",
        models,
        index=None,
        accept_new_options=True,
        placeholder="Choose one, or write its name",
        key=f"model-of-{provider}",
    )
    known = f"{len(models):,} models are known." if models else "No model of it is known yet."
    st.html(html.note(f"{known} A model in this list serves nobody until a route names it."))
    if st.button("Ask for its list of models", key=f"list-{provider}", type="tertiary",
                 disabled=bool(current_user.why_not(Role.PROPOSER))):  # fmt: skip
        _discover(provider)
    chosen = (model or "").strip()
    parameters, patch, wrong = _ask_request(provider)
    seed = TargetSeed(provider, chosen, parameters, patch)
    action_dialogs.submit(
        "Add the model",
        key=f"add-model-{provider}",
        role=Role.PROPOSER,
        missing=wrong if chosen else "Choose a model first.",
        act=lambda actor: _add_model(actor, seed),
        done=lambda actor: f"{actor.name} added {seed.target.name}.",
        waits_for=ASKS,
    )


def _add_model(actor: Actor, seed: TargetSeed) -> None:
    ctx = page_frame.context()
    added = targets.add_target(ctx, actor, seed)
    if unlisted := discovery.describe_unlisted(ctx, actor, added):
        st.session_state[UNLISTED] = (added.name, unlisted)


def show_unlisted() -> None:
    """Shows, once, what the provider says of the model that was just added."""
    name, why = st.session_state.pop(UNLISTED, ("", ""))
    if why:
        st.html(html.banner(f"{name} is added, and may answer nothing:", why))


def _ask_request(provider: str) -> tuple[JsonObject, RequestPatch, str]:
    """Asks what is sent to a model beside the client's request: its parameters, a change of the
    request, and what is wrong with them.
    """
    with st.expander("Parameters, and changes of each request (optional)"):
        st.html(
            html.note(
                "With any of these it is a model of its own: it has its own name, needs its "
                "own proof, and can serve beside the plain one."
            )
        )
        own, first = ask_object(
            "Parameters, as JSON; a client's own value wins", key=f"parameters-{provider}",
            example='{"temperature": 0}',
        )  # fmt: skip
        forced, second = ask_object(
            "Set whatever the client sent, as JSON", key=f"patch-{provider}",
            example='{"store": false}',
        )  # fmt: skip
        form, third = ask_object(
            "response_format, instead of the client's, as JSON", key=f"format-{provider}",
            example='{"type": "json_object"}',
        )  # fmt: skip
        addendum = st.text_area(
            "Text appended to the system message", key=f"addendum-{provider}"
        )
    patch = RequestPatch(forced, (addendum or "").strip(), form or None)
    return own, patch, first or second or third


def _discover(provider: str) -> None:
    with st.spinner(f"{ASKS} …"):
        current_user.attempt(
            lambda actor: _read_list(actor, provider),
            lambda _: f"{provider} listed its models.",
        )


def _read_list(actor: Actor, provider: str) -> None:
    discovery.discover_models(page_frame.context(), actor, provider)
    action_dialogs.reopen(f"model-{provider}")


@action_dialogs.dialog("Change the address", width="medium")
def change_address(provider: str) -> None:
    """Asks for another address, and why."""
    ctx = page_frame.context()
    before = registry.get_provider(ctx, provider)
    typed = st.text_input(
        f"Address of {provider}", before.api_base, key=f"base-{provider}", live=True
    )
    address = (typed or "").strip()
    used = ", ".join(before.routes[:SHOWN]) + (" …" if len(before.routes) > SHOWN else "")
    words = (
        f"Routes that use it ({used}) go on with the new address at once; what was measured "
        "before is no proof for them any more."
        if before.routes
        else "No route uses it."
    )
    st.html(html.note(words))
    reason = action_dialogs.ask_reason(f"base-why-{provider}")
    missing = "" if reason else action_dialogs.REASON_MISSING
    if not address or address == before.api_base:
        missing = "This is its address already." if address else "An address is needed."
    action_dialogs.submit(
        "Change and check",
        key=f"base-now-{provider}",
        role=Role.ADMIN,
        missing=missing,
        act=lambda actor: _change_address(actor, provider, address, reason),
        done=lambda actor: f"{actor.name} moved {provider} to {address}.",
        waits_for=ASKS,
    )


def _change_address(actor: Actor, provider: str, address: str, reason: str) -> None:
    ctx = page_frame.context()
    change = ProviderChange(api_base=address, reason=reason)
    moved = registry.change_provider(ctx, actor, provider, change, create=False)
    if moved.outdated:
        st.session_state[OUTDATED] = (provider, tuple(moved.outdated))
    checks.check_provider(ctx, actor, provider)


def show_outdated() -> None:
    """Shows, once, what waits for new proof since a provider was moved."""
    provider, entries = st.session_state.pop(OUTDATED, ("", ()))
    if entries:
        st.html(
            html.banner(f"{provider} was moved: waiting for new proof.", ", ".join(entries))
        )


@action_dialogs.dialog("Remove the provider")
def remove(provider: str) -> None:
    """Asks for the provider's name, so that no stray click removes one."""
    st.html(
        html.block(
            f"<p>{strong(provider)} and its stored keys are removed on every router within "
            "2 s. This is refused while a route, a proposal, a shadow or a judge uses it.</p>"
        )
    )
    typed = st.text_input(f"Write {provider} to confirm", key=f"sure-{provider}", live=True)
    sure = (typed or "").strip() == provider
    action_dialogs.submit(
        "Remove it",
        key=f"remove-now-{provider}",
        role=Role.ADMIN,
        missing="" if sure else "The button works once the name stands here.",
        act=lambda actor: registry.remove_provider(page_frame.context(), actor, provider),
        done=lambda actor: f"{actor.name} removed {provider}.",
    )


def check_now(provider: str) -> None:
    """Asks the provider at once, without a dialog: it changes nothing."""
    with st.spinner(f"{ASKS} …"):
        current_user.attempt(
            lambda actor: checks.check_provider(page_frame.context(), actor, provider),
            lambda _: f"{provider} was asked. Its card says what was found.",
        )
