"""Writes the Settings page: how many settings were set and where, and a table of them."""

import re
from collections.abc import Sequence
from typing import Final

from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.app.settings_origin import Setting, SettingSource
from harness.control.routing.seed import SeedDifference
from harness.domain.settings import Settings

_ENDS: Final = re.compile(r"[._]")
_PAGE: Final = re.compile(r"docs/([a-z0-9/_-]+)\.md")
PHONE_CHARACTERS: Final = 36  # of a name in a line at 390 px
HEADS: Final = ("Setting", "Value", "From")
SOURCES: Final = {
    SettingSource.FILE: "the file",
    SettingSource.ENVIRONMENT: "the environment",
}


def headline(found: Sequence[Setting]) -> str:
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


def note(settings: Settings) -> str:
    """Says which file was read."""
    file = settings.source
    where = f"File: {file}" if file is not None else "There is no swapgate.yaml here"
    return f"{where} · the environment is this dashboard's · secrets are never shown"


def how_changed() -> str:
    """Says where settings are changed, and when a change is in force."""
    words = (
        "Routes, providers, keys and suites are changed on their pages, while everything goes "
        "on. What stands here is changed in the file or the environment; a process follows "
        "once it is restarted, and a router at SIGHUP too."
    )
    return html.block(f'<p class="note">{escape(words)}</p>')


def stale(changed: Sequence[str]) -> str:
    """Warns where the file is newer than what is in force; empty where it is not."""
    if not changed:
        return ""
    words = (
        f"{', '.join(changed)} changed in the file or the environment after this dashboard was "
        "started. Below is what they say now; a process follows it once it is restarted."
    )
    return html.banner("STALE.", words)


def differences(found: Sequence[SeedDifference]) -> str:
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


def table(found: Sequence[Setting]) -> str:
    """Renders settings, a line each."""
    return html.table(HEADS, [_cells(setting) for setting in found], stacked=True)


def _cells(setting: Setting) -> Sequence[str]:
    name = f'<b class="mono long">{_breakable(setting.name)}</b>'
    meaning = f'<br><span class="note">{_meaning(setting.meaning)}</span>'
    return (
        name + (meaning if setting.meaning else ""),
        f'<span class="mono">{escape(setting.value)}</span>',
        _origin(setting),
    )


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
