"""The Settings page answers: what is configured, and where? Each setting with its value and
whether the file, the environment or a default says so; secrets never. For admins: it names
files, addresses and variables of the machine.
"""

import re
from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import current_user, downloads, page_frame
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.app import settings_origin
from harness.app.settings_origin import Setting, SettingSource
from harness.control.routing import seed
from harness.control.routing.seed import SeedDifference
from harness.domain.operations.access import Role
from harness.domain.settings import Settings

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
    note = _file_note(installed.settings)
    st.html(html.title(_headline(found), html.escape(note)))
    st.html(_how_changed())
    page_frame.show_html(_stale(settings_origin.list_changed_sections(installed.settings)))
    if installed.settings.source is None:
        page_frame.show_empty("A configuration file is written by:", "swapgate init")
    # First: of all that stands here, this alone may ask for an act.
    differences = seed.list_seed_differences(installed.context, installed.settings)
    page_frame.show_html(_differences(differences))
    _list(found)
    page_frame.copy_as_cli(["config", "show", "--origin"])


def _refuse(why: str) -> None:
    """Says who may see this page."""
    st.html(html.title("The settings are for <b>admins</b>"))
    words = (
        f"{why} This page names files, addresses and variables of the machine. On the machine "
        "itself, swapgate config show --origin prints the same."
    )
    st.html(html.banner("?", words))
    page_frame.copy_as_cli(["config", "show", "--origin"])


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
    """Writes the page's first line, as HTML."""
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


def _file_note(settings: Settings) -> str:
    file = settings.source
    where = f"File: {file}" if file is not None else "There is no swapgate.yaml here"
    return f"{where} · the environment is this dashboard's · secrets are never shown"


def _how_changed() -> str:
    """Says where settings are changed, and when a change is in force."""
    words = (
        "Routes, providers, keys and suites are changed on their pages, while everything goes "
        "on. What stands here is changed in the file or the environment; a process follows "
        "once it is restarted, and a router at SIGHUP too."
    )
    return html.block(f'<p class="note">{escape(words)}</p>')


def _stale(changed: Sequence[str]) -> str:
    """Warns where the file is newer than what is in force; empty where it is not."""
    if not changed:
        return ""
    words = (
        f"{', '.join(changed)} changed in the file or the environment after this dashboard was "
        "started. Below is what they say now; a process follows it once it is restarted."
    )
    return html.banner("STALE.", words)


def _differences(found: Sequence[SeedDifference]) -> str:
    """Lists where the file differs from the database, which rules; empty where nothing does."""
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
    name = f'<b class="mono long">{_breakable(setting.name)}</b>'
    meaning = f'<br><span class="note">{_meaning(setting.meaning)}</span>'
    return {
        "Setting": name + (meaning if setting.meaning else ""),
        "Value": f'<span class="mono">{escape(setting.value)}</span>',
        "From": _origin(setting),
    }


def _breakable(name: str) -> str:
    """Lets a name that is too long for a phone go on after a dot or a low line, not within a
    word.
    """
    shown = escape(name)
    return _ENDS.sub(r"\g<0><wbr>", shown) if len(name) > PHONE_CHARACTERS else shown


def _meaning(text: str) -> str:
    """Writes a meaning as a sentence; a page of the docs that it names becomes a link."""
    words = html.rich(text[:1].upper() + text[1:])
    return _PAGE.sub(lambda page: html.docs_link(page[1], page[1].rpartition("/")[2]), words)


def _origin(setting: Setting) -> str:
    if setting.source is SettingSource.DEFAULT:
        return '<span class="note">default</span>'
    place = f'<span class="mono">{escape(setting.place)}</span>'
    if setting.source is SettingSource.ENVIRONMENT:
        return f'<span>{place}<br><span class="note">environment variable</span></span>'
    return place


if __name__ == "__main__":
    page_frame.show_page("The settings", show)
