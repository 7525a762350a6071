"""The Providers page answers: which models can I reach, and with which abilities and prices?

The figures are the same as in `swapproof provider matrix`. The dialogs are in
`provider_dialogs`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from dashboard import labels, markup, page_frame
from dashboard.dialog_forms import Opener
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
from dashboard.operation_dialogs import operation_openers
from dashboard.resource_page import Cards, ResourceList, ResourcePage, Search
from dashboard.views import provider_dialogs as dialogs
from harness.frame.formatting import format_date, format_milliseconds
from harness.frame.people.access import Role
from harness.frame.people.limits import EvalLimits
from harness.operations.context import Context
from harness.providers.calls.probe import (
    ProbeFinding,
    ProbeStatus,
    ProbeSubject,
    ProviderCheck,
)
from harness.providers.kinds import ProviderGroup
from harness.providers.models.catalogue import COLUMNS, Ability
from harness.providers.models.model_ends import EndState
from harness.providers.records import Providers
from harness.providers.registry import registered_providers
from harness.providers.registry.operations import PROVIDERS
from harness.providers.target import Price
from harness.routing.reports.matrix import MatrixModel, MatrixRow, ProviderHealth, build_matrix

# With more providers than these, the page has a search and shows no more at once.
MOST_CARDS: Final = 12
# With more models than these, a provider's card has rows only for models that routes use.
MOST_MODELS: Final = 25
# In the cards' order: unhealthy providers first.
HEALTH_LABELS: Final = {
    ProviderHealth.UNHEALTHY: Label("✕", "unhealthy", Tone.WORSE),
    ProviderHealth.UNKNOWN: Label("?", "not asked lately", Tone.UNDECIDED),
    ProviderHealth.HEALTHY: Label("✓", "healthy", Tone.BETTER),
}
PROBE_SIGNS: Final = {
    ProbeStatus.OK: ("✓", Tone.BETTER),
    ProbeStatus.WARN: ("?", Tone.UNDECIDED),
    ProbeStatus.FAIL: ("✕", Tone.WORSE),
    ProbeStatus.UNKNOWN: ("–", Tone.NEUTRAL),
}


@dataclass(frozen=True, slots=True)
class ProvidersView:
    """The page's data. rows: the providers, unhealthy ones first."""

    rows: Sequence[MatrixRow]
    kinds: Sequence[MatrixRow]  # kinds without a provider
    checks: Mapping[str, ProviderCheck]  # by provider
    limits: Mapping[str, EvalLimits]  # by provider
    now: datetime


def load(ctx: Context, _: None) -> ProvidersView:
    """Loads the providers with their models, and the newest check of each."""
    rows = build_matrix(ctx)
    with ctx.store.read() as tx:
        stored_kinds = {(name, provider.kind) for name, provider in Providers(tx).all().items()}
    order = list(HEALTH_LABELS)
    configured = sorted(
        (row for row in rows if (row.provider, row.kind) in stored_kinds),
        key=lambda row: (order.index(row.health), row.configured, row.provider.casefold()),
    )
    kinds = [row for row in rows if row not in configured]
    checks = registered_providers.load_checks(ctx)
    limits = page_frame.installation().settings.eval_limits
    return ProvidersView(configured, kinds, checks, limits, ctx.clock.now())


def _write_headline(providers: Sequence[MatrixRow]) -> str:
    """Names the providers that are unhealthy, lack a key or had no request lately. Without such
    a provider, states that all work.
    """
    unhealthy = [row.ill for row in providers if row.health is ProviderHealth.UNHEALTHY]
    keyless = [row.provider for row in providers if not row.configured]
    unknown = [row.provider for row in providers if row.health is ProviderHealth.UNKNOWN]
    other_text = "" if len(unknown) == len(providers) else "; the others work"
    for names, singular, plural, words in (
        (unhealthy, "is", "are", "unhealthy"),
        (keyless, "has", "have", "no key"),
        (unknown, "was", "were", f"not asked lately{other_text}"),
    ):
        if names:
            verb = singular if len(names) == 1 else plural
            return f"{strong(labels.few(names, 3))} {verb} {words}"
    if not providers:
        return "There is no provider yet"
    names_text = labels.few([row.provider for row in providers], 3)
    return f"{strong(names_text)} {'works' if len(providers) == 1 else 'work'}"


def _list_openers(row: MatrixRow) -> list[Opener]:
    """Builds the buttons of a provider's card."""
    name = row.provider
    keys_label = "Sign in or out" if row.group is ProviderGroup.OAUTH else "Keys"
    check = partial(dialogs.check_now, name)
    icon = ":material/network_check:"
    return [
        Opener("Check now", icon, check, f"check-{name}", Role.PROPOSER),
        dialogs.add_model.opener(name),
        dialogs.change_keys.opener(name, label=keys_label),
        dialogs.change_address.opener(name),
        *dialogs.price_openers(list_unpriced_models(row)),
        *operation_openers(PROVIDERS, name),
    ]


def list_unpriced_models(row: MatrixRow) -> Sequence[str]:
    """Lists a provider's models without a price, models of routes first."""
    models = _sort_models(row)
    return [f"{row.provider}/{model.model}" for model in models if model.price is None]


def _sort_models(row: MatrixRow) -> Sequence[MatrixModel]:
    """Sorts a provider's models: models of routes first."""
    return sorted(row.models, key=lambda model: (not model.routes, model.model))


def _build_kind_row(_: ProvidersView, row: MatrixRow) -> markup.Row:
    return {
        "Kind": escape(row.kind),
        "Group": escape(row.group),
        "Known limitations": escape("; ".join(row.limitations) or "none"),
    }


def render_card(view: ProvidersView, row: MatrixRow) -> Sequence[str]:
    """Renders a provider's card: its health, its last check and its models."""
    parts = (
        _render_heading(row),
        _render_limits(view.limits.get(row.provider, EvalLimits())),
        _render_last_check(view.checks.get(row.provider), view.now),
    )
    return [markup.block(*parts, kind="sg-provider"), *_render_models(row)]


def _render_heading(row: MatrixRow) -> str:
    """Renders name, health, key and limitations of a provider."""
    key_text = "key is set" if row.has_key else "no key needed" if row.configured else "no key"
    if row.group is ProviderGroup.OAUTH:
        key_text = "signed in" if row.has_key else "not signed in"
    is_known = row.health is not ProviderHealth.UNKNOWN
    reason_html = f' <span class="note">{rich(row.health_because)}</span>' if is_known else ""
    parts = [f"{row.kind}, {row.group}", key_text]
    if row.data_classes:
        parts.append(f"may see {', '.join(row.data_classes)} data")
    health = HEALTH_LABELS[row.health]
    if row.ill not in ("", row.provider):
        health = replace(health, words="a model is unhealthy")
    notes = (" · ".join((*parts, *row.limitations)), *row.repairs)
    return (
        f'<p><span class="name">{escape(row.provider)}</span> {state(health)}{reason_html}</p>'
        + ("".join(f'<p class="note">{escape(note)}</p>' for note in notes))
    )


def _render_limits(limits: EvalLimits) -> str:
    rates = (
        (limits.requests_per_min, "requests / min"),
        (limits.tokens_per_min, "tokens / min"),
        (limits.max_concurrent, "at a time"),
    )
    parts = ", ".join(f"{value:,.15g} {unit}" for value, unit in rates if value is not None)
    words = f"at most {parts}" if parts else "not limited"
    return f'<p class="note">{escape(f"Evals: {words}")}</p>'


def _render_last_check(check: ProviderCheck | None, now: datetime) -> str:
    """Renders the findings of the last check, and a banner for each failure."""
    if check is None:
        return '<p class="note">Not checked yet: “Check now” tests whether it works.</p>'
    findings = " · ".join(map(_render_finding, check.findings))
    check_time = f"Checked {labels.age(check.at, now)}, {labels.date_time(check.at)}"
    check_line = f'<p class="note">{rich(check_time)}: {findings}</p>'
    return check_line + "".join(
        banner(
            f"✕ {finding.subject.capitalize()}: {finding.found}.",
            f"Next: {finding.next_step}." if finding.next_step else "",
            tone=Tone.WORSE,
        )
        for finding in check.findings
        if finding.status is ProbeStatus.FAIL
    )


def _render_finding(finding: ProbeFinding) -> str:
    symbol, tone = PROBE_SIGNS[finding.status]
    is_measured = (
        finding.subject is ProbeSubject.FIRST_TOKEN and finding.status is ProbeStatus.OK
    )
    words = f"{finding.subject.value} {finding.found}" if is_measured else finding.subject.value
    return f'<span class="{tone}">{symbol}</span>&nbsp;{escape(words)}'


def _render_models(row: MatrixRow) -> Sequence[str]:
    """Renders the models of a provider, models of routes first. Folds the rest if there are
    many.
    """
    ordered = _sort_models(row)
    if not ordered:
        return [markup.note("No model is known yet. Add the model that a route should use.")]
    parts = [
        markup.table(
            [_build_model_row(model, row.group) for model in ordered[:MOST_MODELS]],
            stacked=True,
        )
    ]
    if folded_models := ordered[MOST_MODELS:]:
        count = labels.plural(len(folded_models), "more model")
        names = ", ".join(model.model for model in folded_models)
        parts.append(markup.folded(f"{count} that no route uses", f"<p>{escape(names)}</p>"))
    return parts


def _describe_end(model: MatrixModel, group: ProviderGroup) -> str:
    """Describes a model's end. It omits an unknown end if only the operator can remove it."""
    if model.end.day is not None:
        return f"ends {format_date(model.end.day)}"
    if group in (ProviderGroup.LOCAL, ProviderGroup.SIMULATED):
        return ""
    is_unknown = model.end.state is EndState.UNKNOWN
    return "end unknown" if is_unknown else "no end is announced"


def _build_model_row(model: MatrixModel, group: ProviderGroup) -> markup.Row:
    window_tokens = model.context_window
    median_ms = model.p50_ms
    routes = labels.few(model.routes, 2)
    return {
        "Model": noted(
            strong(model.model),
            _describe_end(model, group),
        ),
        "In / out, 1M tokens": price_cell(model),
        "Can": _render_abilities(model.abilities),
        "Window": escape(f"{window_tokens:,} tokens") if window_tokens else faint("unknown"),
        "Median": faint("not measured")
        if median_ms is None
        else escape(format_milliseconds(median_ms)),
        "Routes": escape(routes) if routes else faint("none"),
    }


def _render_abilities(abilities: Mapping[str, Ability]) -> str:
    """Renders a model's present and missing abilities. Folds unknown ones, because they are not
    missing.
    """
    columns: dict[Ability, list[str]] = {ability: [] for ability in Ability}
    for column in COLUMNS:
        columns[abilities[column]].append(column.replace("_", " ").replace("json", "JSON"))
    parts = [
        f'<span class="{tone}">{symbol}</span>&nbsp;{escape(", ".join(columns[ability]))}'
        for ability, symbol, tone in (
            (Ability.YES, "✓", Tone.BETTER),
            (Ability.NO, "✕", Tone.WORSE),
        )
        if columns[ability]
    ]
    folded = ""
    if unknown := columns[Ability.UNKNOWN]:
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
        listed_price = origin.current if origin is not None else None
        listed_text = (
            f"; the catalogue lists {_format_price(listed_price)}"
            if listed_price is not None
            else ""
        )
        return noted(escape(_format_price(model.price)), f"set for this provider{listed_text}")
    date_text = f", {origin.as_of:%d %b %Y}" if origin.as_of else ""
    return noted(escape(_format_price(model.price)), f"{origin.source}{date_text}")


def _format_price(price: Price) -> str:
    return f"{labels.usd(price.input_usd_per_mtok)} / {labels.usd(price.output_usd_per_mtok)}"


CARDS: Final = ResourceList[ProvidersView, MatrixRow](
    rows=lambda view: view.rows,
    cards=Cards(
        key=lambda row: f"provider-{row.provider}",
        parts=render_card,
        actions=lambda _, row: _list_openers(row),
    ),
    actions=lambda _: [dialogs.add_provider.opener()],
    nothing="Add a provider above, or by this command:",
    fills="swapproof provider add openai",
    search=Search(
        "Find a provider",
        "Part of its name, kind or of a model",
        lambda row: " ".join((row.provider, row.kind, *(m.model for m in row.models))),
        MOST_CARDS,
        "No provider's name, kind or models contain this text.",
    ),
    what="providers",
)
KINDS: Final = ResourceList[ProvidersView, MatrixRow](
    rows=lambda view: view.kinds,
    cells=_build_kind_row,
    folded=("more kind that could be added", "more kinds that could be added"),
)
PAGE: Final = ResourcePage[None, ProvidersView](
    name="The providers",
    ask=lambda: None,
    load=load,
    title=lambda view: (_write_headline(view.rows), rich(labels.date_time(view.now))),
    parts=(dialogs.show_once, CARDS.show, KINDS.show),
    commands=lambda _: [["provider", "matrix"]],
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
