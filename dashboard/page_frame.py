"""The frame of every dashboard page opens the installation once per process, shows kill
switches and a broken audit log on top, turns errors into words with a way to try again. Also
what pages share: running a button's action, its confirmation, the loading note, "Copy as CLI".
"""

import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import streamlit as st

from dashboard import theme
from dashboard.data import queries
from dashboard.text import html, labels
from dashboard.theme import Palette
from harness.app.installation import Installation, open_installation
from harness.control.context import Context
from harness.control.routing import kill_switch
from harness.domain.errors import ConfigError, NotFound, StoreUnavailable, SwapgateError
from harness.domain.routing.kill_switch import KillSwitch

log = logging.getLogger("swapgate.dashboard")

ROUTER_SERVES = "The router continues to serve its last valid table; nothing was changed."


@cache
def installation() -> Installation:
    """Opens the installation that all visitors of this process share. Raises ConfigError."""
    return open_installation()


def context() -> Context:
    return installation().context


def palette() -> Palette:
    return theme.palette(st.context.theme.type)


def show_page(name: str, show: Callable[[], None]) -> None:
    """Shows a page. An error in it is shown in words, with a way to try again."""
    try:
        _show_switches()
        _check_audit_log()
        show()
    except NotFound as error:
        _failed(f"{name} could not be shown", str(error), "The other pages work.")
    except StoreUnavailable as error:
        _failed("The database does not answer", str(error), ROUTER_SERVES)
    except ConfigError as error:
        _failed("The configuration cannot be used", str(error), ROUTER_SERVES)
    except SwapgateError as error:
        _failed(
            f"{name} could not be shown", str(error), f"The other pages work. {ROUTER_SERVES}"
        )
    except Exception:
        # The last resort: an error of ours, which belongs in the log and not on the page.
        log.exception("page_failed: %s", name)
        why = "An unexpected error; its details are in the dashboard's log."
        _failed(f"{name} could not be shown", why, f"The other pages may work. {ROUTER_SERVES}")


def _failed(what: str, why: str, works: str) -> None:
    st.html(html.failure(what, why, works))
    if st.button("Try again", icon=":material/refresh:"):
        st.rerun()


def _show_switches() -> None:
    """Show the kill switches in force: in the database, the environment and the file."""
    standing = installation().standing_switches
    for switch in standing:
        _switch_banner(switch)
    for switch in kill_switch.list_live_switches(context()):
        _switch_banner(switch)


def _switch_banner(switch: KillSwitch) -> None:
    heading, text = labels.switch_banner(switch)
    st.html(html.banner(heading, text, tone=labels.Tone.WORSE))


def _check_audit_log() -> None:
    broken = _first_break()
    if broken is not None:
        st.html(
            html.banner(
                f"✕ The audit log is broken at event {broken:,}.",
                "Somebody changed what was recorded. swapgate audit verify shows where.",
                tone=labels.Tone.WORSE,
            )
        )


@st.cache_data(ttl=60, show_spinner=False)
def _first_break() -> int | None:
    return queries.chain_break(context())


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Show what is being read, at the height of what follows; only the first time."""
    key = f"shown:{what}"
    # It is there each time: without it all below would move up, and be drawn anew.
    slot = st.empty()
    if key not in st.session_state:
        slot.html(html.loading(what))
    try:
        yield
    finally:
        slot.empty()
    st.session_state[key] = True


def attempt(action: Callable[[], object], done: str) -> None:
    """Run a button's action, then redraw the page, or show why it was refused."""
    try:
        action()
    except SwapgateError as error:
        st.html(html.failure("Not done", str(error), "Nothing was changed."))
        return
    st.session_state["done"] = done
    st.rerun()


def show_done_message() -> None:
    """Shows what the last button did, in one line."""
    message = st.session_state.pop("done", None)
    if message:
        st.html(html.banner("Done.", message, tone=labels.Tone.BETTER))


def copy_as_cli(*words: str) -> None:
    """Show the command that prints what this page shows, at the foot."""
    with st.expander("Copy as CLI", icon=":material/terminal:"):
        st.code(shlex.join(["swapgate", *words]), language=None)
