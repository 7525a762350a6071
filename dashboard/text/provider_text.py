"""Writes the Providers page's title, each provider's heading (health, key, limits) and the
cells of its table of models, from the provider matrix.
"""

from collections.abc import Sequence
from typing import Final

from dashboard.text import labels
from dashboard.text.html import escape, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.providers.matrix import MatrixModel, MatrixRow, ProviderHealth
from harness.domain.formatting import format_milliseconds
from harness.domain.providers.matrix import COLUMNS, Ability
from harness.domain.routing.target import Price

HEADS: Final = (
    "Model",
    *(column.replace("_", " ").replace("json", "JSON") for column in COLUMNS),
    "Window",
    "Price in / out, 1M tokens",
    "Median",
    "Routes",
)
_ABILITY: Final = {
    Ability.YES: '<span class="better">✓&nbsp;yes</span>',
    Ability.NO: '<span class="worse">✕&nbsp;no</span>',
    Ability.UNKNOWN: '<span class="note">unknown</span>',
}
_HEALTH: Final = {
    ProviderHealth.HEALTHY: Label("✓", "healthy", Tone.BETTER),
    ProviderHealth.UNHEALTHY: Label("✕", "unhealthy", Tone.WORSE),
    ProviderHealth.UNKNOWN: Label("?", "unknown", Tone.UNDECIDED),
}


def title(rows: Sequence[MatrixRow]) -> str:
    """Writes the first line of the Providers page."""
    here = configured(rows)
    unhealthy = [row.provider for row in here if row.health is ProviderHealth.UNHEALTHY]
    keyless = [row.provider for row in here if not row.configured]
    if unhealthy:
        verb = "is" if len(unhealthy) == 1 else "are"
        return f"{strong(', '.join(unhealthy))} {verb} unhealthy"
    if keyless:
        verb = "has" if len(keyless) == 1 else "have"
        return f"{strong(', '.join(keyless))} {verb} no key"
    if not here:
        return "No provider yet"
    return f"{labels.plural(len(here), 'provider')} configured; no known problem"


def configured(rows: Sequence[MatrixRow]) -> list[MatrixRow]:
    """The providers in the registry; the other rows are kinds that could be added."""
    return [row for row in rows if row.health_because != "not configured"]


def heading(row: MatrixRow) -> str:
    key = "key is set" if row.has_key else "no key needed" if row.configured else "no key"
    parts = [f"{row.kind}, {row.group}", key]
    if row.data_classes:
        parts.append(f"may see {', '.join(row.data_classes)} data")
    return (
        f'<p><span class="name">{escape(row.provider)}</span> {state(_HEALTH[row.health])} '
        f'<span class="note">{escape(row.health_because.replace("`", ""))}</span></p>'
        f'<p class="note">{escape(" · ".join((*parts, *row.limitations)))}</p>'
    )


def cells(model: MatrixModel) -> list[str]:
    """Renders a model's row as cells of HTML, in the order of HEADS."""
    window = f"{model.context_window:,}" if model.context_window else "unknown"
    speed = format_milliseconds(model.p50_ms) if model.p50_ms is not None else "not measured"
    return [
        escape(model.model),
        *(_ABILITY[model.abilities[column]] for column in COLUMNS),
        escape(window),
        escape(_price(model.price)),
        escape(speed),
        escape(labels.plural(len(model.routes), "route") if model.routes else "none"),
    ]


def _price(price: Price | None) -> str:
    if price is None:
        return "unknown"
    return f"{labels.usd(price.input_usd_per_mtok)} / {labels.usd(price.output_usd_per_mtok)}"
