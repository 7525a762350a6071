"""The Providers page answers: which models can I reach, with which abilities and prices?

The figures are the same as in `swapgate provider matrix`. The dialogs are in
`provider_dialogs`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

import streamlit as st

from dashboard import labels, markup, page_frame
from dashboard.dialog_forms import Opener, show_openers
from dashboard.labels import Label, Tone
from dashboard.markup import (
    banner,
    escape,
    faint,
    noted,
    rich,
    state,
    strong,
)
from dashboard.views import provider_dialogs as dialogs
from harness.frame.formatting import format_milliseconds
from harness.frame.people.access import Role
from harness.frame.people.limits import EvalLimits
from harness.providers.calls.probe import (
    ProbeFinding,
    ProbeStatus,
    ProbeSubject,
    ProviderCheck,
)
from harness.providers.kinds import ProviderGroup
from harness.providers.models.catalogue import COLUMNS, Ability
from harness.providers.registry import registered_providers
from harness.providers.target import Price
from harness.routing.reports.matrix import MatrixModel, MatrixRow, ProviderHealth, build_matrix

# With more providers than these, the page has a search and shows no more at once.
MOST_CARDS: Final = 12
# With more models than these, a provider's card has rows only for models that routes use.
MOST_MODELS: Final = 25
# In the cards' order: unhealthy providers first.
HEALTH: Final = {
    ProviderHealth.UNHEALTHY: Label("✕", "unhealthy", Tone.WORSE),
    ProviderHealth.UNKNOWN: Label("?", "not asked lately", Tone.UNDECIDED),
    ProviderHealth.HEALTHY: Label("✓", "healthy", Tone.BETTER),
}
PROBED: Final = {
    ProbeStatus.OK: ("✓", Tone.BETTER),
    ProbeStatus.WARN: ("?", Tone.UNDECIDED),
    ProbeStatus.FAIL: ("✕", Tone.WORSE),
    ProbeStatus.UNKNOWN: ("–", Tone.NEUTRAL),
}


def show() -> None:
    """Shows the providers, unhealthy ones first, and the kinds that could be added."""
    with page_frame.loading("the providers"):
        ctx = page_frame.context()
        rows = build_matrix(ctx)
        checked = registered_providers.load_checks(ctx)
    now = ctx.clock.now()
    # The other rows are kinds without a provider.
    here = [row for row in rows if row.health_because != "not configured"]
    st.html(markup.title(_headline(here), escape(labels.date_time(now))))
    page_frame.show_done_message()
    dialogs.show_once()
    add = dialogs.add_provider.opener()
    # One note explains the disabled buttons of all cards.
    of_cards = _openers(here[0]) if here else []
    show_openers([add], explain=[add, *of_cards])
    if here:
        _cards(here, checked, now)
    else:
        page_frame.show_empty(
            "Add a provider above, or by this command:",
            "swapgate provider add openai",
        )
    others = [row for row in rows if row not in here]
    with st.expander(f"{labels.plural(len(others), 'more kind')} that could be added"):
        st.html(markup.table(map(_kind_cells, others)))
    page_frame.copy_as_cli(["provider", "matrix"])


def _headline(here: Sequence[MatrixRow]) -> str:
    """Names the providers that are unhealthy, lack a key or were not asked lately; else says
    that all work.
    """
    ill = [row.ill for row in here if row.health is ProviderHealth.UNHEALTHY]
    keyless = [row.provider for row in here if not row.configured]
    unknown = [row.provider for row in here if row.health is ProviderHealth.UNKNOWN]
    others = "" if len(unknown) == len(here) else "; the others work"
    for names, one, several, words in (
        (ill, "is", "are", "unhealthy"),
        (keyless, "has", "have", "no key"),
        (unknown, "was", "were", f"not asked lately{others}"),
    ):
        if names:
            verb = one if len(names) == 1 else several
            return f"{strong(labels.few(names, 3))} {verb} {words}"
    if not here:
        return "There is no provider yet"
    everybody = labels.few([row.provider for row in here], 3)
    return f"{strong(everybody)} {'works' if len(here) == 1 else 'work'}"


def _cards(
    rows: Sequence[MatrixRow],
    checked: Mapping[str, ProviderCheck],
    now: datetime,
) -> None:
    order = list(HEALTH)
    found = page_frame.find(
        sorted(
            rows,
            key=lambda row: (
                order.index(row.health),
                row.configured,
                row.provider.casefold(),
            ),
        ),
        MOST_CARDS,
        "Find a provider",
        "Part of its name, kind or of a model",
        lambda row: " ".join((row.provider, row.kind, *(m.model for m in row.models))),
    )
    if len(rows) > MOST_CARDS:
        shown = f"{min(len(found), MOST_CARDS)} of {labels.plural(len(rows), 'provider')}"
        nothing = "No provider's name, kind or models contain this text."
        st.html(markup.note(shown if found else nothing))
    limits = page_frame.installation().settings.eval_limits
    for row in found[:MOST_CARDS]:
        with st.container(border=True):
            parts = (
                _heading(row),
                _limits(limits.get(row.provider, EvalLimits())),
                _last_check(checked.get(row.provider), now),
            )
            st.html(markup.block(*parts, kind="sg-provider"))
            _models(row)
            show_openers(_openers(row), explain=())


def _openers(row: MatrixRow) -> list[Opener]:
    """Builds the buttons of a provider's card."""
    name = row.provider
    access = "Sign in or out" if row.group is ProviderGroup.OAUTH else "Keys"
    check = partial(dialogs.check_now, name)
    icon = ":material/network_check:"
    return [
        Opener("Check now", icon, check, f"check-{name}", Role.PROPOSER),
        dialogs.add_model.opener(name),
        dialogs.change_keys.opener(name, label=access),
        dialogs.change_address.opener(name),
        dialogs.remove.opener(name),
    ]


def _kind_cells(row: MatrixRow) -> markup.Row:
    return {
        "Kind": escape(row.kind),
        "Group": escape(row.group),
        "Known limitations": escape("; ".join(row.limitations) or "none"),
    }


def _heading(row: MatrixRow) -> str:
    """Renders name, health, key and limitations of a provider."""
    key = "key is set" if row.has_key else "no key needed" if row.configured else "no key"
    if row.group is ProviderGroup.OAUTH:
        key = "signed in" if row.has_key else "not signed in"
    # The next line of the card shows a check's findings.
    checked = row.health_because.startswith(("the check of", "not asked"))
    why = "" if checked else f' <span class="note">{rich(row.health_because)}</span>'
    parts = [f"{row.kind}, {row.group}", key]
    if row.data_classes:
        parts.append(f"may see {', '.join(row.data_classes)} data")
    health = HEALTH[row.health]
    if row.ill not in ("", row.provider):
        health = replace(health, words="a model is unhealthy")
    notes = (" · ".join((*parts, *row.limitations)), *row.repairs)
    return f'<p><span class="name">{escape(row.provider)}</span> {state(health)}{why}</p>' + (
        "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    )


def _limits(limits: EvalLimits) -> str:
    known = (
        (limits.requests_per_min, "requests / min"),
        (limits.tokens_per_min, "tokens / min"),
        (limits.max_concurrent, "at a time"),
    )
    parts = ", ".join(f"{value:,.15g} {unit}" for value, unit in known if value is not None)
    words = f"at most {parts}" if parts else "not limited"
    return f'<p class="note">{escape(f"Evals: {words}")}</p>'


def _last_check(check: ProviderCheck | None, now: datetime) -> str:
    """Renders the findings of the last check, and a banner for each failure."""
    if check is None:
        return '<p class="note">Not checked yet: “Check now” tests whether it works.</p>'
    found = " · ".join(map(_finding, check.findings))
    when = f"Checked {labels.age(check.at, now)}, {labels.date_time(check.at)}"
    line = f'<p class="note">{escape(when)}: {found}</p>'
    return line + "".join(
        banner(
            f"✕ {finding.subject.capitalize()}: {finding.found}.",
            f"Next: {finding.next_step}." if finding.next_step else "",
            tone=Tone.WORSE,
        )
        for finding in check.findings
        if finding.status is ProbeStatus.FAIL
    )


def _finding(finding: ProbeFinding) -> str:
    symbol, tone = PROBED[finding.status]
    measured = finding.subject is ProbeSubject.FIRST_TOKEN and finding.status is ProbeStatus.OK
    words = f"{finding.subject.value} {finding.found}" if measured else finding.subject.value
    return f'<span class="{tone}">{symbol}</span>&nbsp;{escape(words)}'


def _models(row: MatrixRow) -> None:
    """Shows the models of a provider, those of routes first. Folds the rest if there
    are many.
    """
    ordered = sorted(row.models, key=lambda model: (not model.routes, model.model))
    if not ordered:
        st.html(markup.note("No model is known yet. Add the model that a route should use."))
        return
    st.html(markup.table(map(_cells, ordered[:MOST_MODELS]), stacked=True))
    if others := ordered[MOST_MODELS:]:
        names = ", ".join(model.model for model in others)
        with st.expander(f"{labels.plural(len(others), 'more model')} that no route uses"):
            st.html(markup.block(f"<p>{escape(names)}</p>"))


def _cells(model: MatrixModel) -> markup.Row:
    window = model.context_window
    speed = model.p50_ms
    routes = labels.few(model.routes, 2)
    return {
        "Model": noted(
            strong(model.model),
            model.end_date and f"ends {model.end_date:%d %b %Y}",
        ),
        "In / out, 1M tokens": price_cell(model),
        "Can": _abilities(model.abilities),
        "Window": escape(f"{window:,} tokens") if window else faint("unknown"),
        "Median": faint("not measured")
        if speed is None
        else escape(format_milliseconds(speed)),
        "Routes": escape(routes) if routes else faint("none"),
    }


def _abilities(known: Mapping[str, Ability]) -> str:
    """Renders what a model can and cannot do. Unknown abilities are folded, not shown as
    missing.
    """
    named: dict[Ability, list[str]] = {ability: [] for ability in Ability}
    for column in COLUMNS:
        named[known[column]].append(column.replace("_", " ").replace("json", "JSON"))
    parts = [
        f'<span class="{tone}">{symbol}</span>&nbsp;{escape(", ".join(named[ability]))}'
        for ability, symbol, tone in (
            (Ability.YES, "✓", Tone.BETTER),
            (Ability.NO, "✕", Tone.WORSE),
        )
        if named[ability]
    ]
    folded = ""
    if unknown := named[Ability.UNKNOWN]:
        folded = (
            f'<details><summary class="note">{len(unknown)} unknown</summary>'
            f"{faint(', '.join(unknown))}</details>"
        )
    return "<br>".join(parts) + ("<br>" if len(parts) == 1 and folded else "") + folded


def price_cell(model: MatrixModel) -> str:
    """Formats a price with its source and date. An unknown price must not look like 0."""
    if model.price is None:
        return faint("unknown")
    origin = model.price_origin
    if origin is None or not origin.source:
        now = origin.current if origin is not None else None
        other = f"; the catalogue lists {_price(now)}" if now is not None else ""
        return noted(escape(_price(model.price)), f"set for this provider{other}")
    since = f", {origin.as_of:%d %b %Y}" if origin.as_of else ""
    return noted(escape(_price(model.price)), f"{origin.source}{since}")


def _price(price: Price) -> str:
    return f"{labels.usd(price.input_usd_per_mtok)} / {labels.usd(price.output_usd_per_mtok)}"


if __name__ == "__main__":
    page_frame.show_page("The providers", show)
