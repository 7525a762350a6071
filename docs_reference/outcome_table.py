"""Writes the table of `outcome.READINGS`: each guardrail's reading of each outcome."""

from collections.abc import Iterable, Mapping
from typing import Final

from docs_reference.registries import table
from harness.gate.online.guardrails import RANK_GUARDRAILS, Guardrail
from harness.gate.online.outcome import READINGS, OutcomeKind, Reading

_COUNT_WORDS: Final = {
    Reading.GOOD: "good",
    Reading.BAD: "**bad**",
    Reading.CENSORED: "at least",
    Reading.UNKNOWN: "–",
}
_VALUE_WORDS: Final = {
    **_COUNT_WORDS,
    Reading.GOOD: "value",
    Reading.BAD: "**worst**",
}
# Guardrails whose faults lie in the answer or in the caller's opinion.
_ANSWER_WORDS: Final = {**_COUNT_WORDS, Reading.GOOD: "by the answer"}
_ANSWER_GUARDRAILS: Final = frozenset(
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
# Cells in which `outcome.read` refines the table.
_REFINED_CELLS: Final[Mapping[tuple[Guardrail, OutcomeKind], str]] = {
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
        rows.setdefault(_build_cells(guardrail), []).append(f"`{guardrail.value}`")
    heads = [
        "guardrail",
        *(kind.value.replace("_", " ") for kind in OutcomeKind),
    ]
    return table(heads, _join_names(rows))


def _join_names(rows: Mapping[tuple[str, ...], list[str]]) -> Iterable[tuple[str, ...]]:
    return ((", ".join(names), *cells) for cells, names in rows.items())


def _build_cells(guardrail: Guardrail) -> tuple[str, ...]:
    words = _COUNT_WORDS
    if guardrail in RANK_GUARDRAILS:
        words = _VALUE_WORDS
    elif guardrail in _ANSWER_GUARDRAILS:
        words = _ANSWER_WORDS
    readings = READINGS[guardrail]
    return tuple(
        _REFINED_CELLS.get((guardrail, kind)) or words[readings[kind]] for kind in OutcomeKind
    )
