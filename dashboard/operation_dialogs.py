"""Builds dialogs and their buttons from declared operations (`harness.frame.operation`).

A page shows the buttons of a group's operations by `operation_openers`. After success, the
dashboard shows the operation's own sentence, as the command line does.
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
    """Builds the button of an operation's dialog.

    Args:
        missing: the reason why the dialog cannot open now; empty if it can.
    """
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
        _show_form(form, operation, texts, subject)

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


def _show_form(form: Form, operation: Operation[Any], texts: DialogTexts, subject: Any) -> None:
    note = texts.note(subject) if texts.note else ""
    effect = texts.effect(page_frame.context(), subject)
    form.say(*map(markup.emphasized, effect), note=note)
    subject_input, *other_inputs = operation.inputs
    arguments: dict[str, Any] = {subject_input.name: texts.argument(subject)}
    for other_input in other_inputs:
        if not other_input.declared.for_programs:
            arguments[other_input.name] = _ask_input(form, other_input)
    if texts.typed_name is not None:
        form.confirm(texts.typed_name(subject))

    def act(ctx: Context, actor: Actor) -> None:
        outcome = operation.run(_DialogCaller(ctx, actor), arguments)
        sentence = operation.done(outcome) if operation.done else "it is done"
        form.success_message = f"{sentence[:1].upper()}{sentence[1:]}."

    form.submit(texts.button, "", act)


def _ask_input(form: Form, wanted_input: Input) -> Any:
    """Asks for an input, by its type. Raises TypeError for a type without a field."""
    declared = wanted_input.declared
    label = (
        declared.label or declared.meaning.rstrip(".") or wanted_input.name.replace("_", " ")
    )
    key = form.key(wanted_input.name)
    value_type = wanted_input.plain_kind
    if declared.choices is not None:
        return form.pick(wanted_input.name, label, declared.choices)
    if value_type is bool:
        return st.checkbox(label, wanted_input.default is True, key=key)
    if isinstance(value_type, type) and issubclass(value_type, StrEnum):
        return form.pick(wanted_input.name, label, {word.value: word for word in value_type})
    if value_type in (int, float):
        lowest, highest = declared.range[:2] if declared.range else (None, None)
        default = None if wanted_input.is_required else wanted_input.default
        number = Field(label, lowest, highest).ask(wanted_input.name, default, key)
        form.need(
            number is not None or not wanted_input.is_required, f"{label}: enter a number."
        )
        return None if number is None else value_type(number)
    if value_type is str and wanted_input.name == "reason":
        return (
            form.reason() if wanted_input.is_required else form.text("why", "Reason (optional)")
        )
    if value_type is str:
        need = f"{label}: enter a text." if wanted_input.is_required else ""
        return form.text(wanted_input.name, label, need=need)
    raise TypeError(
        f"{wanted_input.name}: give `choices`, because a dialog has no field for {value_type}"
    )
