"""Writes the Providers page's title, each provider's heading (health, key, last check) and the
cells of its table of models: prices with source and date, abilities with the unknown ones
folded, from the provider matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from dashboard.text import labels
from dashboard.text.html import Row, banner, escape, rich, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.providers.matrix import MatrixModel, MatrixRow, MinuteUse, ProviderHealth
from harness.domain.formatting import format_milliseconds
from harness.domain.providers.catalogue import COLUMNS, Ability
from harness.domain.providers.kinds import ProviderGroup
from harness.domain.providers.probe import (
    ProbeFinding,
    ProbeStatus,
    ProbeSubject,
    ProviderCheck,
)
from harness.domain.reliability.rate_limits import EvalLimits
from harness.domain.routing.target import Price

# With more models than these, a provider shows those that routes use and names the others.
MOST_MODELS: Final = 25
_HEALTH: Final = {
    ProviderHealth.HEALTHY: Label("✓", "healthy", Tone.BETTER),
    ProviderHealth.UNHEALTHY: Label("✕", "unhealthy", Tone.WORSE),
    ProviderHealth.UNKNOWN: Label("?", "not asked lately", Tone.UNDECIDED),
}
_PROBED: Final = {
    ProbeStatus.OK: Label("✓", "", Tone.BETTER),
    ProbeStatus.WARN: Label("?", "", Tone.UNDECIDED),
    ProbeStatus.FAIL: Label("✕", "", Tone.WORSE),
    ProbeStatus.UNKNOWN: Label("–", "", Tone.NEUTRAL),
}


def title(rows: Sequence[MatrixRow]) -> str:
    here = configured(rows)
    unhealthy = [row.ill for row in here if row.health is ProviderHealth.UNHEALTHY]
    keyless = [row.provider for row in here if not row.configured]
    unknown = [row.provider for row in here if row.health is ProviderHealth.UNKNOWN]
    if unhealthy:
        verb = "is" if len(unhealthy) == 1 else "are"
        return f"{_named(unhealthy)} {verb} unhealthy"
    if keyless:
        verb = "has" if len(keyless) == 1 else "have"
        return f"{_named(keyless)} {verb} no key"
    if not here:
        return "There is no provider yet"
    if unknown:
        verb = "was" if len(unknown) == 1 else "were"
        others = "" if len(unknown) == len(here) else "; the others work"
        return f"{_named(unknown)} {verb} not asked lately{others}"
    return f"{_named([row.provider for row in here])} {'works' if len(here) == 1 else 'work'}"


def _named(names: Sequence[str]) -> str:
    return strong(labels.few(names, 3))


def by_urgency(rows: Sequence[MatrixRow]) -> list[MatrixRow]:
    """Orders providers: those with trouble first, then by name."""
    order = (ProviderHealth.UNHEALTHY, ProviderHealth.UNKNOWN, ProviderHealth.HEALTHY)
    return sorted(
        rows, key=lambda row: (order.index(row.health), row.configured, row.provider.casefold())
    )


def configured(rows: Sequence[MatrixRow]) -> list[MatrixRow]:
    """The providers in the registry; the other rows are kinds that could be added."""
    return [row for row in rows if row.health_because != "not configured"]


def heading(row: MatrixRow) -> str:
    key = "key is set" if row.has_key else "no key needed" if row.configured else "no key"
    if row.group is ProviderGroup.OAUTH:
        key = "signed in" if row.has_key else "nobody is signed in"
    # What a check said stands on the line below.
    checked = row.health_because.startswith(("the check of", "not asked"))
    why = "" if checked else f' <span class="note">{rich(row.health_because)}</span>'
    parts = [f"{row.kind}, {row.group}", key]
    if row.data_classes:
        parts.append(f"may see {', '.join(row.data_classes)} data")
    health = _HEALTH[row.health]
    if row.ill not in ("", row.provider):
        health = replace(health, words="a model is unhealthy")
    return (
        f'<p><span class="name">{escape(row.provider)}</span> {state(health)}'
        f"{why}</p>"
        f'<p class="note">{escape(" · ".join((*parts, *row.limitations)))}</p>'
        + "".join(f'<p class="note">{escape(repair)}</p>' for repair in row.repairs)
    )


def rates(use: MinuteUse, limits: EvalLimits | None) -> str:
    """Writes what a provider answered in the last minute, and what limits how much it is
    asked: Swapgate limits evals alone; how much clients may ask, their keys say.
    """
    answered = (
        f"{labels.plural(use.requests, 'request')}, {labels.plural(use.tokens, 'token')}"
        if use.requests
        else "no request"
    )
    parts = (
        [
            f"{value:,.15g} {unit}"
            for value, unit in (
                (limits.requests_per_min, "requests / min"),
                (limits.tokens_per_min, "tokens / min"),
                (limits.max_concurrent, "at a time"),
            )
            if value is not None
        ]
        if limits
        else []
    )
    evals = f"evals: at most {', '.join(parts)}" if parts else "evals: not limited"
    until = use.minute + timedelta(minutes=1)
    words = f"Answered from {use.minute:%H:%M} to {until:%H:%M} UTC: {answered}"
    return (
        f'<p class="note">{escape(f"{words} · clients: limited by their keys · {evals}")}</p>'
    )


def last_check(check: ProviderCheck | None, now: datetime) -> str:
    """Writes when a provider was asked last and what was found; a failure has its next step."""
    if check is None:
        return '<p class="note">Not checked yet: “Check now” asks it whether it works.</p>'
    found = " · ".join(_finding(finding) for finding in check.findings)
    when = f"Checked {labels.age(check.at, now)}, {labels.date_time(check.at)}"
    line = f'<p class="note">{escape(when)}: {found}</p>'
    failed = [finding for finding in check.findings if finding.status is ProbeStatus.FAIL]
    return line + "".join(
        banner(
            f"✕ {finding.subject.capitalize()}: {finding.found}.",
            f"Next: {finding.next_step}." if finding.next_step else "",
            tone=Tone.WORSE,
        )
        for finding in failed
    )


def _finding(finding: ProbeFinding) -> str:
    label = _PROBED[finding.status]
    tone = f'<span class="{label.tone}">{label.symbol}</span>'
    measured = finding.subject is ProbeSubject.FIRST_TOKEN and finding.status is ProbeStatus.OK
    words = f"{finding.subject.value} {finding.found}" if measured else finding.subject.value
    return f"{tone}&nbsp;{escape(words)}"


def shown_models(models: Sequence[MatrixModel]) -> tuple[Sequence[MatrixModel], Sequence[str]]:
    """Returns the models that have a row, those of routes first, and the others' names."""
    ordered = sorted(models, key=lambda model: (not model.routes, model.model))
    return ordered[:MOST_MODELS], [model.model for model in ordered[MOST_MODELS:]]


def cells(model: MatrixModel) -> Row:
    window = f"{model.context_window:,} tokens" if model.context_window else ""
    speed = format_milliseconds(model.p50_ms) if model.p50_ms is not None else ""
    return {
        "Model": strong(model.model) + _ending(model),
        "In / out, 1M tokens": price_cell(model),
        "Can": abilities(model.abilities),
        "Window": escape(window) or _faint("unknown"),
        "Median": escape(speed) or _faint("not measured"),
        "Routes": _routes(model.routes),
    }


def _faint(words: str) -> str:
    return f'<span class="note">{escape(words)}</span>'


def _ending(model: MatrixModel) -> str:
    if model.end_date is None:
        return ""
    return f'<br><span class="note">ends {model.end_date:%d %b %Y}</span>'


def _routes(names: Sequence[str]) -> str:
    if not names:
        return _faint("none")
    return escape(labels.few(names, 2))


def abilities(known: Mapping[str, Ability]) -> str:
    """Lists what a model can and cannot do; what nobody knows is folded."""
    named: dict[Ability, list[str]] = {ability: [] for ability in Ability}
    for column in COLUMNS:
        named[known[column]].append(column.replace("_", " ").replace("json", "JSON"))
    parts = []
    if named[Ability.YES]:
        parts.append(
            f'<span class="better">✓</span>&nbsp;{escape(", ".join(named[Ability.YES]))}'
        )
    if named[Ability.NO]:
        parts.append(
            f'<span class="worse">✕</span>&nbsp;{escape(", ".join(named[Ability.NO]))}'
        )
    if unknown := named[Ability.UNKNOWN]:
        parts.append(
            f'<details><summary class="note">{len(unknown)} unknown</summary>'
            f'<span class="note">{escape(", ".join(unknown))}</span></details>'
        )
    return "<br>".join(parts[:2]) + "".join(parts[2:]) if len(parts) > 2 else "<br>".join(parts)


def price_cell(model: MatrixModel) -> str:
    """Writes a price with its source and date; an unknown one is never 0."""
    if model.price is None:
        return _faint("unknown")
    return f"{escape(_price(model.price))}<br>{_origin(model)}"


def _price(price: Price) -> str:
    return f"{labels.usd(price.input_usd_per_mtok)} / {labels.usd(price.output_usd_per_mtok)}"


def _origin(model: MatrixModel) -> str:
    origin = model.price_origin
    if origin is None or not origin.source:
        now = origin.current if origin is not None else None
        other = f"; the catalogue says {_price(now)}" if now is not None else ""
        return _faint(f"given to this provider{other}")
    since = f", {origin.as_of:%d %b %Y}" if origin.as_of else ""
    return _faint(f"{origin.source}{since}")
