"""The Settings page answers: what is configured, and where? For admins; secrets never."""

import re
from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import current_user, downloads, page_frame
from dashboard.text import html, labels
from dashboard.text.html import escape, faint, noted, strong
from harness.app import settings_origin
from harness.app.settings_origin import Setting, SettingSource
from harness.control.routing import seed
from harness.control.routing.seed import SeedDifference
from harness.domain.operations.access import Role

COMMAND: Final = ("config", "show", "--origin")
HOW_CHANGED: Final = (
    "Routes, providers, keys and suites are changed on their pages, while everything goes on. "
    "What stands here is changed in the file or the environment; a process follows after a "
    "SIGHUP or a restart."
)
ALL: Final = "all sections"
MOST_SETTINGS: Final = 60
SET_HERE, EVERY = "set here", "all"


def show() -> None:
    if why := current_user.why_not(Role.ADMIN):
        st.html(html.title("The settings are for <b>admins</b>"))
        words = (
            f"{why} This page names files, addresses and variables of the machine. On the "
            "machine itself, swapgate config show --origin prints the same."
        )
        st.html(html.banner("?", words))
        page_frame.copy_as_cli(COMMAND)
        return
    with page_frame.loading("the settings"):
        installed = page_frame.installation()
        found = settings_origin.list_settings(installed.settings)
    file = installed.settings.source
    where = f"File: {file}" if file is not None else "There is no swapgate.yaml here"
    note = f"{where} · the environment is this dashboard's · secrets are never shown"
    st.html(html.title(_headline(found), html.escape(note)))
    st.html(html.note(HOW_CHANGED))
    if changed := settings_origin.list_changed_sections(installed.settings):
        words = (
            f"{', '.join(changed)} changed in the file or the environment after this dashboard "
            "was started. Below is what they say now; a process follows it after a SIGHUP or a "
            "restart."
        )
        st.html(html.banner("STALE.", words))
    if installed.settings.source is None:
        page_frame.show_empty("A configuration file is written by:", "swapgate init")
    # First: of all that stands here, this alone may ask for an act.
    differences = seed.list_seed_differences(installed.context, installed.settings)
    page_frame.show_html(_differences(differences))
    _list(found)
    page_frame.copy_as_cli(COMMAND)


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
        wanted = page_frame.search("Find a setting", "Part of its name")
    chosen = [
        setting
        for setting in found
        if (shown == EVERY or setting.source is not SettingSource.DEFAULT)
        and section in (ALL, setting.section)
        and wanted(f"{setting.name} {setting.meaning}")
    ]
    if not chosen:
        hidden = "" if shown == EVERY else ' Choose "all" to see the defaults too.'
        st.html(html.note(f"No setting is like this.{hidden}"))
        return
    st.html(html.table(map(_cells, chosen[:MOST_SETTINGS]), stacked=True))
    if len(chosen) > MOST_SETTINGS:
        rest = f"The first {MOST_SETTINGS} of {labels.plural(len(chosen), 'setting')}."
        st.html(html.note(f"{rest} Choose a section or search to see others."))
    downloads.offer("settings", lambda: downloads.frame_of(chosen))


_ENDS: Final = re.compile(r"[._]")
_PAGE: Final = re.compile(r"docs/([a-z0-9/_-]+)\.md")
PHONE_CHARACTERS: Final = 36  # of a name in a line at 390 px
SOURCES: Final = {
    SettingSource.FILE: "the file",
    SettingSource.ENVIRONMENT: "the environment",
}


def _headline(found: Sequence[Setting]) -> str:
    counts = {
        source: sum(setting.source is source for setting in found) for source in SettingSource
    }
    ours = counts[SettingSource.FILE] + counts[SettingSource.ENVIRONMENT]
    if not ours:
        return "Nothing is configured here: all settings are defaults"
    verb = "is" if ours == 1 else "are"
    set_ = {source: counts[source] for source in SOURCES if counts[source]}
    amount = strong(labels.plural(ours, "setting"))
    if len(set_) == 1:
        return f"{amount} {verb} set in {SOURCES[next(iter(set_))]}"
    parts = [f"{count:,} in {SOURCES[source]}" for source, count in set_.items()]
    return f"{amount} {verb} set here: {' and '.join(parts)}"


def _differences(found: Sequence[SeedDifference]) -> str:
    if not found:
        return ""
    lines = "".join(f"<li>{html.rich(str(difference))}</li>" for difference in found)
    heading = html.section(
        "The database says otherwise", "It rules; the file only brings in what is new."
    )
    apply = (
        "`swapgate config apply` takes over what the file says of providers, and new routes; a "
        "route that is there keeps its model and settings."
    )
    return heading + html.block(f"<ul>{lines}</ul><p>{html.rich(apply)}</p>")


def _cells(setting: Setting) -> html.Row:
    name, meaning = escape(setting.name), setting.meaning
    if len(setting.name) > PHONE_CHARACTERS:
        # On a phone it goes on after a dot or a low line, not within a word.
        name = _ENDS.sub(r"\g<0><wbr>", name)
    shown = f'<b class="mono long">{name}</b>'
    if meaning:
        # A page of the docs that it names becomes a link.
        words = _PAGE.sub(
            lambda page: html.docs_link(page[1], page[1].rpartition("/")[2]),
            html.rich(meaning[:1].upper() + meaning[1:]),
        )
        shown += f'<br><span class="note">{words}</span>'
    origin = f'<span class="mono">{escape(setting.place)}</span>'
    if setting.source is SettingSource.DEFAULT:
        origin = faint("default")
    elif setting.source is SettingSource.ENVIRONMENT:
        origin = f"<span>{noted(origin, 'environment variable')}</span>"
    value = f'<span class="mono">{escape(setting.value)}</span>'
    return {"Setting": shown, "Value": value, "From": origin}


if __name__ == "__main__":
    page_frame.show_page("The settings", show)
