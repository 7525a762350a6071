"""The table of `outcome.READINGS`: how each guardrail reads each outcome of an exposure."""

from collections.abc import Iterable, Mapping
from typing import Final

from docs_reference.registries import table
from harness.gate.online.guardrails import RANK_GUARDRAILS, Guardrail
from harness.gate.online.outcome import READINGS, OutcomeKind, Reading

_COUNTED: Final = {
    Reading.GOOD: "good",
    Reading.BAD: "**bad**",
    Reading.CENSORED: "at least",
    Reading.UNKNOWN: "–",
}
_VALUES: Final = {
    **_COUNTED,
    Reading.GOOD: "value",
    Reading.BAD: "**worst**",
}
# Guardrails that find their units' faults in the answer or in the caller's opinion.
_OPINIONS: Final = {**_COUNTED, Reading.GOOD: "by the answer"}
_BY_ANSWER: Final = frozenset(
    {
        Guardrail.TRUNCATION,
        Guardrail.REFUSALS,
        Guardrail.JSON_VALIDITY,
        Guardrail.TOOL_VALIDITY,
        Guardrail.FEEDBACK,
        Guardrail.JUDGE,
        Guardrail.REPEATS,
    }
)
# Cells that `outcome.read` refines.
_REFINED: Final[Mapping[tuple[Guardrail, OutcomeKind], str]] = {
    (
        Guardrail.LEAVING,
        OutcomeKind.LEFT,
    ): "**bad** after a long wait, else good",
    (
        Guardrail.TIME_TO_FIRST_TOKEN,
        OutcomeKind.LEFT,
    ): "value if sent, else at least",
}


def outcome_table() -> str:
    """Writes a row for each guardrail; guardrails with equal rows share one."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for guardrail in Guardrail:
        rows.setdefault(_cells(guardrail), []).append(f"`{guardrail.value}`")
    heads = [
        "guardrail",
        *(kind.value.replace("_", " ") for kind in OutcomeKind),
    ]
    return table(heads, _joined(rows))


def _joined(rows: Mapping[tuple[str, ...], list[str]]) -> Iterable[tuple[str, ...]]:
    return ((", ".join(names), *cells) for cells, names in rows.items())


def _cells(guardrail: Guardrail) -> tuple[str, ...]:
    words = _COUNTED
    if guardrail in RANK_GUARDRAILS:
        words = _VALUES
    elif guardrail in _BY_ANSWER:
        words = _OPINIONS
    readings = READINGS[guardrail]
    return tuple(
        _REFINED.get((guardrail, kind)) or words[readings[kind]] for kind in OutcomeKind
    )
