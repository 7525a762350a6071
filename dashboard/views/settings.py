"""The Settings page answers: what is configured, and where? Each setting with its value and
whether the file, the environment or a default says so; secrets never. For admins: it names
files, addresses and variables of the machine.
"""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import current_user, downloads, page_frame
from dashboard.text import html, labels, setting_text
from harness.app import settings_origin
from harness.app.settings_origin import Setting, SettingSource
from harness.control.routing import seed
from harness.domain.operations.access import Role

ALL: Final = "all sections"
MOST_SETTINGS: Final = 60
SET_HERE, EVERY = "set here", "all"


def show() -> None:
    why = current_user.why_not(Role.ADMIN)
    if why:
        _refuse(why)
        return
    with page_frame.loading("the settings"):
        installed = page_frame.installation()
        found = settings_origin.list_settings(installed.settings)
    note = setting_text.note(installed.settings)
    st.html(html.title(setting_text.headline(found), html.escape(note)))
    st.html(setting_text.how_changed())
    page_frame.show_html(
        setting_text.stale(settings_origin.list_changed_sections(installed.settings))
    )
    if installed.settings.source is None:
        st.html(html.empty("A configuration file is written by:", "swapgate init"))
    # First: of all that stands here, this alone may ask for an act.
    differences = seed.list_seed_differences(installed.context, installed.settings)
    page_frame.show_html(setting_text.differences(differences))
    _list(found)
    page_frame.copy_as_cli("config", "show", "--origin")


def _refuse(why: str) -> None:
    """Says who may see this page."""
    st.html(html.title("The settings are for <b>admins</b>"))
    words = (
        f"{why} This page names files, addresses and variables of the machine. On the machine "
        "itself, swapgate config show --origin prints the same."
    )
    st.html(html.banner("?", words))
    page_frame.copy_as_cli("config", "show", "--origin")


def _list(found: Sequence[Setting]) -> None:
    sections = sorted({setting.section for setting in found})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = st.segmented_control(
            "Show",
            [SET_HERE, EVERY],
            default=SET_HERE,
            required=True,
            key="show",
            bind="query-params",
        )
        section = st.selectbox("Section", [ALL, *sections], key="section", bind="query-params")
        wanted = st.text_input(
            "Find a setting", key="find", bind="query-params", placeholder="Part of its name"
        )
    chosen = [
        setting
        for setting in found
        if (shown == EVERY or setting.source is not SettingSource.DEFAULT)
        and section in (ALL, setting.section)
        and (wanted or "").casefold() in f"{setting.name} {setting.meaning}".casefold()
    ]
    if not chosen:
        hidden = "" if shown == EVERY else ' Choose "all" to see the defaults too.'
        st.html(html.note(f"No setting is like this.{hidden}"))
        return
    st.html(setting_text.table(chosen[:MOST_SETTINGS]))
    if len(chosen) > MOST_SETTINGS:
        rest = f"The first {MOST_SETTINGS} of {labels.plural(len(chosen), 'setting')}."
        st.html(html.note(f"{rest} Choose a section or search to see others."))
    downloads.offer("settings", lambda: downloads.frame_of(chosen))


page_frame.show_page("The settings", show)
