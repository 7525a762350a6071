"""Builds dialogs and their buttons from declared operations (`harness.frame.operation`).

A page shows the buttons of a group's operations by `operation_openers`. The sentence after
success is the operation's own, as on the command line.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import streamlit as st

from dashboard import markup, page_frame
from dashboard.dialog_forms import Dialog, Field, Form, Opener
from harness.frame.operation import (
    DialogTexts,
    Input,
    Operation,
    OperationGroup,
)
from harness.frame.people.access import Actor
from harness.operations.context import Context


def operation_openers(group: OperationGroup, subject: object) -> list[Opener]:
    """Lists the buttons of a group's operations that apply to a subject."""
    return [
        operation_opener(operation, subject)
        for operation in group.operations
        if operation.dialog is not None and operation.dialog.applies(subject)
    ]


def operation_opener(operation: Operation[Any], subject: object, missing: str = "") -> Opener:
    """Builds the button of an operation's dialog. missing: why it cannot open now."""
    dialog = operation_dialog(operation)
    texts = operation.dialog
    label = texts.opener(subject) if texts and texts.opener else f"{dialog.title} …"
    return dialog.opener(subject, label=label, missing=missing)


def operation_dialog(operation: Operation[Any]) -> Dialog[Any]:
    """Builds the dialog of an operation. Raises TypeError for an operation without one."""
    texts = operation.dialog
    if texts is None:
        raise TypeError(f"the operation {operation.id} has no dialog")

    def show(form: Form, subject: object) -> None:
        _show(form, operation, texts, subject)

    return Dialog(
        texts.title,
        show,
        operation.role,
        operation.id.replace("_", "-"),
        texts.icon,
        width="medium" if texts.wide else "small",
    )


@dataclass(frozen=True, slots=True)
class _DialogCaller:
    """The caller of a use case in the dashboard."""

    ctx: Context
    actor: Actor

    @property
    def secret(self) -> bytes:
        return page_frame.installation().secret


def _show(form: Form, operation: Operation[Any], texts: DialogTexts, subject: Any) -> None:
    note = texts.note(subject) if texts.note else ""
    effect = texts.effect(page_frame.context(), subject)
    form.say(*map(markup.emphasized, effect), note=note)
    first, *others = operation.inputs
    given: dict[str, Any] = {first.name: texts.argument(subject)}
    for entered in others:
        if not entered.declared.for_programs:
            given[entered.name] = _ask(form, entered)
    if texts.typed_name is not None:
        form.confirm(texts.typed_name(subject))

    def act(ctx: Context, actor: Actor) -> None:
        outcome = operation.run(_DialogCaller(ctx, actor), given)
        sentence = operation.done(outcome) if operation.done else "it is done"
        form.success_message = f"{sentence[:1].upper()}{sentence[1:]}."

    form.submit(texts.button, "", act)


def _ask(form: Form, entered: Input) -> Any:
    """Asks for an input, by its type. Raises TypeError for a type without a field."""
    declared = entered.declared
    label = declared.label or declared.meaning.rstrip(".") or entered.name.replace("_", " ")
    key = form.key(entered.name)
    kind = entered.plain_kind
    if declared.choices is not None:
        return form.pick(entered.name, label, declared.choices)
    if kind is bool:
        return st.checkbox(label, entered.default is True, key=key)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return form.pick(entered.name, label, {word.value: word for word in kind})
    if kind in (int, float):
        least, most = declared.range[:2] if declared.range else (None, None)
        first = None if entered.is_required else entered.default
        number = Field(label, least, most).ask(entered.name, first, key)
        form.need(number is not None or not entered.is_required, f"{label}: enter a number.")
        return None if number is None else kind(number)
    if kind is str and entered.name == "reason":
        return form.reason() if entered.is_required else form.text("why", "Reason (optional)")
    if kind is str:
        need = f"{label}: enter a text." if entered.is_required else ""
        return form.text(entered.name, label, need=need)
    raise TypeError(f"{entered.name}: give `choices`, because a dialog has no field for {kind}")
