"""Builds dialogs, the buttons that open them, and their fields. The Enter key does nothing in
a field. A dialog's button is disabled until the visitor has filled the required fields.

A page declares a dialog by `@dialog` on a function that gets a `Form`, and shows its button by
`show_openers`. The form checks the role, names the first missing input, and calls the use case
with `current_user.attempt`. A dialog must not change anything by itself.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial, wraps
from types import MappingProxyType
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
)

import streamlit as st

from dashboard import current_user, markup, page_frame
from harness.frame.configuration.setting import Declaration, FormEntry, plain_settings
from harness.frame.errors import SwapproofError
from harness.frame.people.access import Actor, Role
from harness.operations.context import Context

log = logging.getLogger("swapproof.dashboard")

Arguments = ParamSpec("Arguments")
Option = TypeVar("Option")
Width = Literal["small", "medium", "large"]

REASON = "Reason (required; the audit log keeps it)"
CANNOT_OPEN = "This dialog cannot open now"
UNCHANGED = "Nothing was changed."
RELOAD = "Reload the page to see the present state."
OUR_ERROR = "An unexpected error; its details are in the dashboard's log."
REASON_MISSING = "Write a reason to enable the button."
NAME_MISSING = "Write the name to enable the button."
TYPE_A_MODEL: Final = "Choose, or type PROVIDER/MODEL"
HEIGHT_PX: Final = 72  # height of a JSON field
_ALL_ROUTES: Final = "All routes"
DEFERRED: Final = "deferred-dialog"  # session key of a dialog to open at the page's next run
SMALLEST_ABOVE_0: Final = 0.001  # the least number in a field that excludes 0


@dataclass(frozen=True, slots=True)
class Opener:
    """A button that opens a dialog. role: the role that the action needs."""

    label: str
    icon: str
    open: Callable[[], None]
    key: str
    role: Role
    missing: str = ""  # an obstacle other than the role; empty if the dialog can open
    primary: bool = False  # whether it is the next sensible step


@dataclass(frozen=True, slots=True)
class PageLink:
    """A link to another page, beside buttons. query: the page's filters."""

    page: str
    label: str
    icon: str
    query: Mapping[str, str] = field(default_factory=dict)


Action = Opener | PageLink


def show_openers(
    actions: Sequence[Action],
    *,
    explain: Sequence[Opener] | None = None,
    deferred: bool = False,
) -> None:
    """Shows links and buttons, and explains why some buttons are disabled.

    Args:
        explain: the openers to explain; all by default.
        deferred: opens the dialog at the page's next run. Parts that refresh themselves need
            this, because they would close the dialog.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        for action in actions:
            if isinstance(action, PageLink):
                page_frame.link(action.page, action.label, action.icon, **action.query)
            else:
                _show_opener(action, deferred=deferred)
    if explain is None:
        explain = [action for action in actions if isinstance(action, Opener)]
    refusals = describe_refusals(explain)
    if refusals:
        st.html(markup.note(refusals))


def _show_opener(opener: Opener, *, deferred: bool) -> None:
    clicked = st.button(
        opener.label,
        icon=opener.icon or None,
        key=opener.key,
        type="primary" if opener.primary else "secondary",
        disabled=bool(current_user.why_not(opener.role) or opener.missing),
    )
    if clicked and deferred:
        st.session_state[DEFERRED] = opener.open
        st.rerun()
    if clicked:
        opener.open()


def open_deferred() -> None:
    """Opens the dialog that `show_openers` or `Dialog.reopen` deferred to this run of the
    page.
    """
    open_dialog = st.session_state.pop(DEFERRED, None)
    if open_dialog is not None:
        open_dialog()


def describe_refusals(openers: Sequence[Opener]) -> str:
    """Explains why buttons are disabled.

    If a visitor's role is too low for several buttons, the text names the role that each
    button needs. Else it joins the buttons' own reasons, without repetition.
    """
    labels_by_role: dict[Role, dict[str, None]] = {}
    for opener in openers:
        if current_user.why_not(opener.role):
            labels_by_role.setdefault(opener.role, {})[opener.label.removesuffix(" …")] = None
    obstacles = dict.fromkeys(
        opener.missing
        for opener in openers
        if opener.missing and opener.role not in labels_by_role
    )
    actor = current_user.signed_in()
    if actor is None or len(labels_by_role) < 2:
        reasons = dict.fromkeys(current_user.why_not(role) for role in labels_by_role)
        return " ".join((*reasons, *obstacles))
    required_roles = "; ".join(
        f"{', '.join(labels)} {'needs' if len(labels) == 1 else 'need'} {role.name.lower()}"
        for role, labels in sorted(labels_by_role.items())
    )
    return " ".join(
        (
            f"{actor.name} has the role {actor.role.name.lower()}: {required_roles}.",
            *obstacles,
        )
    )


class Field:
    """A form field for one field of a record.

    `words` makes it a choice. Otherwise the type of the present value decides: a checkbox, a
    text, texts separated by commas, or a number. The visitor enters basis points as a
    percentage. An empty number means no limit.
    """

    def __init__(
        self,
        label: str,
        least: float | None = None,
        most: float | None = None,
        *,
        words: Mapping[Any, str] | None = None,  # a text for each choice
        **options: Any,  # for the Streamlit widget
    ) -> None:
        self._label = label
        self._range = (least, most)
        self._words = words
        self._options = options

    def ask(
        self,
        name: str,
        present: Any,
        key: str,
    ) -> Any:
        """Shows the field with the present value, and returns the value that the visitor
        entered.

        Args:
            name: the record's field, whose ending `_bps` marks basis points.
            key: Streamlit's key.
        """
        label = self._label
        options = {"key": key, **self._options}
        if self._words is not None:
            choices = list(self._words)
            return st.selectbox(
                label,
                choices,
                index=choices.index(present),
                format_func=self._words.__getitem__,
                **options,
            )
        if isinstance(present, bool):
            return st.checkbox(label, present, **options)
        if isinstance(present, str):
            return (st.text_input(label, present, **options) or "").strip()
        if isinstance(present, tuple):
            text = st.text_input(label, ", ".join(present), **options) or ""
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if name.endswith("_bps"):
            share = st.number_input(label, *self._range, present / 100, **options)
            return 0 if share is None else round(share * 100)
        if present is not None and isinstance(self._range[0], float):
            present = float(present)  # the database may return an int
        return st.number_input(label, *self._range, present, **options)


Fields = Mapping[str, Field]  # by the name of the record's field


def ask_fields(
    columns: Sequence[Fields],
    present_record: object,
    key: Callable[[str], str],
) -> dict[str, Any]:
    """Shows fields in columns, and returns the entered values by name.

    Args:
        present_record: has the present values.
    """
    values: dict[str, Any] = {}
    for container, fields in zip(st.columns(len(columns)), columns, strict=True):
        with container:
            for name, entry in fields.items():
                values[name] = entry.ask(name, getattr(present_record, name), key(name))
    return values


class SettingsForm:
    """Asks for the plain settings of a record. Their declarations say in which column each
    setting stands.

    words: the choices of settings that depend on the installation, by name. A setting with a
    single choice is disabled. helps: help texts that depend on the record, by name.
    """

    def __init__(
        self,
        record: type,
        *,
        words: Mapping[str, Mapping[Any, str]] = MappingProxyType({}),
        helps: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._settings = plain_settings(record)
        self._words = words
        self._helps = helps

    def ask(
        self, present_record: object, key: Callable[[str], str], *, advanced: bool
    ) -> dict[str, Any]:
        """Shows two columns of fields, and the wide ones side by side below them. Returns the
        values by name.
        """
        left, right, wide = (
            self._list_fields(column, advanced=advanced) for column in ("left", "right", "wide")
        )
        values = ask_fields([left, right], present_record, key) if left or right else {}
        wide_columns = [{name: entry} for name, entry in wide.items()]
        return values | (ask_fields(wide_columns, present_record, key) if wide_columns else {})

    def _list_fields(self, column: str, *, advanced: bool) -> Fields:
        entries = [
            (entry, declared)
            for declared in self._settings
            if (entry := declared.form) and (entry.column, entry.advanced) == (column, advanced)
        ]
        entries.sort(key=lambda pair: pair[0].row)
        return {
            declared.name: self._build_field(declared, entry) for entry, declared in entries
        }

    def _build_field(self, declared: Declaration, entry: FormEntry) -> Field:
        options: dict[str, Any] = {}
        words = self._words.get(declared.name, entry.words)
        if words is None and issubclass(declared.kind, StrEnum):
            words = {word: word.value for word in declared.kind}
        if declared.name in self._words and len(self._words[declared.name]) == 1:
            options["disabled"] = True
        if text := self._helps.get(declared.name, entry.help):
            options["help"] = text
        if placeholder := entry.placeholder or declared.unset:
            options["placeholder"] = placeholder[:1].upper() + placeholder[1:]
        if entry.live:
            options["live"] = True
        if entry.step is not None:
            options["step"] = entry.step
            if not declared.name.endswith("_bps"):
                options["format"] = "%g"
        return Field(entry.label, *_convert_range(declared), words=words, **options)


def _convert_range(declared: Declaration) -> tuple[float | None, float | None]:
    """Returns the bounds of a number field, in the type of its values. The bounds of basis
    points are percentages.
    """
    allowed = declared.range
    if allowed is None:
        return None, None
    if declared.name.endswith("_bps"):
        return allowed.low / 100, allowed.high / 100
    if declared.kind is int:
        return int(allowed.low), int(allowed.high)
    lowest = SMALLEST_ABOVE_0 if allowed.above else allowed.low
    return (0.0 if allowed.zero else float(lowest)), float(allowed.high)


def ask_object(
    label: str,
    *,
    key: str,
    example: str = "",
) -> tuple[dict[str, object], str]:
    """Asks for a JSON object. Returns it and an empty text, or an empty object and an error
    message.
    """
    text = (
        st.text_area(
            label,
            key=key,
            placeholder=example,
            height=HEIGHT_PX,
        )
        or ""
    ).strip()
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value, ""
    example_text = f", such as {example}" if example else ""
    return {}, f"{label}: this is not a JSON object{example_text}."


@dataclass(slots=True)
class Form:
    """The content of an open dialog: its fields, the first missing input, and its button."""

    role: Role  # the required role
    name: str  # prefix of the fields' keys, unique among the page's dialogs
    # The subject's id. It is part of the keys, so that a text typed for one subject does not
    # appear in the dialog of another.
    subject_id: str = ""
    success_message: str = ""  # replaces the message "ana did this"
    spinner_text: str = ""  # shown during a slow action
    missing: str = field(default="", init=False)  # message for the first missing input

    def key(self, part: str) -> str:
        """Returns Streamlit's key of a field, unique by dialog and subject."""
        return "-".join(filter(None, (self.name, part, self.subject_id)))

    def say(self, *paragraphs: str, note: str = "") -> None:
        """Shows paragraphs of HTML.

        Args:
            note: a plain text below them.
        """
        paragraphs_html = "".join(
            f"<p>{paragraph}</p>" for paragraph in paragraphs if paragraph
        )
        note_html = f'<p class="note">{markup.rich(note)}</p>' if note else ""
        st.html(markup.block(paragraphs_html + note_html))

    def need(self, condition: object, words: str) -> None:
        """Disables the button until a condition is met. The form shows the words of the first
        unmet condition.

        Args:
            words: an instruction to the visitor.
        """
        if not condition:
            self.missing = self.missing or words

    def text(
        self,
        part: str,
        label: str,
        value: str = "",
        *,
        need: str = "",
        **options: Any,
    ) -> str:
        """Asks for a text, and returns it stripped.

        Args:
            need: the message for a required text.
        """
        text = (
            st.text_input(
                label,
                value,
                key=self.key(part),
                live=True,
                **options,
            )
            or ""
        ).strip()
        if need:
            self.need(text, need)
        return text

    def reason(self) -> str:
        """Asks for the required reason, which the audit log keeps."""
        return self.text("why", REASON, need=REASON_MISSING)

    def confirm(self, name: str) -> None:
        """Asks the person to type a name, so that no stray click does irreversible harm."""
        text = self.text("sure", f"Write {name} to confirm")
        self.need(text == name.strip(), NAME_MISSING)

    def choose(
        self,
        part: str,
        label: str,
        options: Iterable[Option],
        *,
        need: str = "",
        placeholder: str = "Choose",
        **widget_options: Any,
    ) -> Option | None:
        """Shows a choice without a preselection. Returns None until the visitor has chosen."""
        choice: Option | None = st.selectbox(
            label,
            list(options),
            index=None,
            placeholder=placeholder,
            key=self.key(part),
            **widget_options,
        )
        if need:
            self.need(choice, need)
        return choice

    def pick(
        self,
        part: str,
        label: str,
        options: Mapping[str, Option],
        default: Option | None = None,
    ) -> Option:
        """Shows a choice with a preselection.

        Args:
            options: values by label.

        Returns the value.
        """
        values = list(options.values())
        index = values.index(default) if default is not None else 0
        chosen_label = st.selectbox(
            label,
            list(options),
            index=index,
            key=self.key(part),
        )
        return options[chosen_label]

    def choose_or_type(
        self,
        part: str,
        label: str,
        options: Iterable[str],
        *,
        need: str = "",
        **widget_options: Any,
    ) -> str:
        """Shows a choice that also takes a typed text. Returns an empty text until the visitor
        has chosen or typed.
        """
        placeholder = widget_options.pop("placeholder", TYPE_A_MODEL)
        choice = self.choose(
            part,
            label,
            options,
            need=need,
            placeholder=placeholder,
            accept_new_options=True,
            **widget_options,
        )
        return (choice or "").strip()

    def choose_scope(self, route: str) -> str | None:
        """Asks whether an action applies to one route or to all. Returns None for all."""
        scope = st.radio(
            "Where",
            [f"Route {route} alone", _ALL_ROUTES],
            key=self.key("where"),
        )
        return None if scope == _ALL_ROUTES else route

    def submit(
        self,
        label: str,
        done_text: str,
        use_case: Callable[Concatenate[Context, Actor, Arguments], object],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> None:
        """Shows a button that calls a use case.

        Args:
            done_text: follows the actor's name in the message after success.
        """
        disabled_because = current_user.why_not(self.role) or self.missing
        if st.button(
            label,
            type="primary",
            key=self.key("now"),
            disabled=bool(disabled_because),
        ):
            with st.spinner(f"{self.spinner_text} …") if self.spinner_text else nullcontext():
                current_user.attempt(
                    lambda actor: use_case(page_frame.context(), actor, *args, **kwargs),
                    lambda actor: self.success_message or f"{actor.name} {done_text}",
                )
        if disabled_because:
            st.html(markup.note(disabled_because))


@dataclass(frozen=True, slots=True)
class Dialog(Generic[Arguments]):
    """A dialog of a page, declared once. Calling it opens it."""

    title: str
    show: Callable[Concatenate[Form, Arguments], None]
    role: Role  # the required role
    name: str  # prefix of the fields' keys, unique among the page's dialogs
    icon: str = ""
    label: str = ""  # label of its button; empty for the title
    width: Width = "small"

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        """Opens the dialog. The first argument is its subject. Shows errors as text."""

        # Ruff bans other uses of `st.dialog`, because Streamlit would show an error's
        # traceback.
        @st.dialog(self.title, width=self.width)  # noqa: TID251
        @wraps(self.show)
        def show_with_errors() -> None:
            # Streamlit reruns a dialog without its page, whose check would be missing.
            current_user.require_reader()
            try:
                self.show(
                    Form(self.role, self.name, _find_subject_id(*args)),
                    *args,
                    **kwargs,
                )
            except SwapproofError as error:
                reason = str(error)
                st.html(
                    markup.failure(CANNOT_OPEN, reason, UNCHANGED, docs_page=error.docs_page)
                )
            except Exception:
                # A fault of Swapproof: its details belong in the log.
                log.exception("dialog_failed: %s", self.title)
                st.html(markup.failure("This failed", OUR_ERROR, RELOAD))

        show_with_errors()

    def reopen(self, *args: Any) -> None:
        """Opens the dialog again at the next run of the page, for a dialog of several steps."""
        st.session_state[DEFERRED] = partial(self, *args)

    def opener(
        self,
        *args: Any,
        label: str = "",
        missing: str = "",
    ) -> Opener:
        """Builds the dialog's button.

        Args:
            missing: an obstacle to opening it; empty without one.
        """
        icon = f":material/{self.icon}:" if self.icon else ""
        button_label = label or self.label or self.title
        key = "-".join(filter(None, ("open", self.name, _find_subject_id(*args))))
        return Opener(button_label, icon, partial(self, *args), key, self.role, missing)


def _find_subject_id(*args: object) -> str:
    """Returns the id of the dialog's subject: a text itself, or the `id` of an object."""
    subject = args[0] if args else ""
    return subject if isinstance(subject, str) else str(getattr(subject, "id", ""))


def dialog(
    title: str,
    role: Role,
    name: str,
    icon: str = "",
    *,
    label: str = "",
    width: Width = "small",
) -> Callable[[Callable[Concatenate[Form, Arguments], None]], Dialog[Arguments]]:
    """Declares a dialog.

    Args:
        name: unique among the page's dialogs, and the start of its fields' keys.
    """
    return lambda show: Dialog(title, show, role, name, icon, label, width)
