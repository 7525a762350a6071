"""The fields of a form as a table: what each is called, asks for, and with which widget."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import streamlit as st

HEIGHT_PX: Final = 72


@dataclass(frozen=True, slots=True)
class Field:
    """Describes a field of a form: the value that it asks for, and with which widget."""

    name: str  # of the value
    label: str
    # A share is stored in basis points and asked in percent; a limit may be empty: none.
    kind: Literal["text", "flag", "number", "share", "limit", "choice"] = "text"
    least: float | None = None
    most: float | None = None
    words: Mapping[Any, str] = field(default_factory=dict)  # by choice
    options: Mapping[str, Any] = field(default_factory=dict)  # of the widget

    def ask(self, before: Any, key: str) -> Any:
        """Shows the widget, and returns what stands in it."""
        match self.kind:
            case "text":
                text = st.text_input(self.label, before, key=key, **self.options)
                return (text or "").strip()
            case "flag":
                return st.checkbox(self.label, before, key=key, **self.options)
            case "choice":
                choices = list(self.words)
                return st.selectbox(
                    self.label, choices, index=choices.index(before), key=key,
                    format_func=self.words.__getitem__, **self.options,
                )  # fmt: skip
            case "share":
                share = self._number(before / 100, key)
                return 0 if share is None else round(share * 100)
            case "limit":
                return self._number(None if before is None else float(before), key)
            case "number":
                return self._number(before, key)

    def _number(self, value: float | None, key: str) -> float | None:
        return st.number_input(
            self.label, self.least, self.most, value, key=key, **self.options
        )


def ask_fields(
    columns: Sequence[Sequence[Field]], before: object, key: Callable[[str], str]
) -> dict[str, Any]:
    """Asks for the fields, column by column, with the values that they have before."""
    given: dict[str, Any] = {}
    for place, fields in zip(st.columns(len(columns)), columns, strict=True):
        with place:
            for entry in fields:
                given[entry.name] = entry.ask(getattr(before, entry.name), key(entry.name))
    return given


def ask_object(label: str, *, key: str, example: str = "") -> tuple[dict[str, object], str]:
    """Shows a field for a JSON object; returns what stands in it, and what is wrong with it."""
    typed = (st.text_area(label, key=key, placeholder=example, height=HEIGHT_PX) or "").strip()
    try:
        found = json.loads(typed or "{}")
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found, ""
    return {}, f"{label}: this is no JSON object{f', such as {example}' if example else ''}."
