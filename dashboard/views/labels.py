"""The Labels page answers: which of two answers is better? A person reads a request with two
answers, blind, and presses one key.

`harness.proposals.labels` draws the pairs and judges the labels. The page shows no evidence
before the end of a labelling, because a person who knows it labels differently.
"""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import Form, Opener, dialog, show_openers
from dashboard.labels import Label, Tone
from dashboard.markup import escape, noted, strong
from dashboard.operation_dialogs import operation_openers
from harness.frame.errors import SwapproofError
from harness.frame.formatting import format_quantity
from harness.frame.people.access import Actor, Role
from harness.proposals.labels import label_pairs, label_verdicts
from harness.proposals.labels.label_operations import LABELS
from harness.proposals.labels.label_pairs import ShownPair
from harness.proposals.labels.label_progress import LabelProgress
from harness.proposals.labels.label_verdicts import WaitingSuite
from harness.proposals.labels.labelling import LabelChoice, ShownAnswer

# Each button with its key on the keyboard, its words and its choice.
CHOICES: Final[Sequence[tuple[str, str, LabelChoice]]] = (
    ("a", "A is better", LabelChoice.A),
    ("b", "B is better", LabelChoice.B),
    ("t", "Equally good", LabelChoice.TIE),
    ("n", "I can't tell", LabelChoice.CANNOT_TELL),
    ("s", "Skip", LabelChoice.SKIP),
)
# The keys that mark an answer as unacceptable.
MARKS: Final[Sequence[tuple[str, ShownAnswer]]] = (
    ("1", ShownAnswer.A),
    ("2", ShownAnswer.B),
)
# The labelling whose pairs this browser shows.
OPEN_KEY: Final = "labelling"
# Whether this browser shows skipped pairs again.
SKIPPED_KEY: Final = "skipped-pairs"
GOES_ON: Final = Label("◐", "goes on", Tone.UNDECIDED)
CLOSED: Final = Label("✕", "closed", Tone.NEUTRAL)
PASSED: Final = Label("✓", "passed", Tone.BETTER)
FAILED: Final = Label("✕", "failed", Tone.WORSE)
UNDECIDED: Final = Label("?", "not enough evidence", Tone.UNDECIDED)


def show() -> None:
    page_frame.show_done_message()
    ctx = page_frame.context()
    labellings = label_pairs.list_labellings(ctx)
    going_on = [
        labelling for labelling in labellings if not (labelling.ended or labelling.closed)
    ]
    with ctx.store.read() as tx:
        waiting = label_verdicts.list_waiting(tx)
    st.html(
        markup.title(
            _write_headline(len(going_on), len(waiting)),
            "People compare the answers of two models, blind. Their labels decide, and the "
            "judge only predicts them.",
        )
    )
    opened = st.session_state.get(OPEN_KEY)
    if opened in {labelling.id for labelling in labellings} and _show_pair(opened):
        return
    if not (labellings or waiting):
        page_frame.show_empty(
            "Labels come after a comparison. This command starts them:",
            "swapproof label ROUTE",
        )
        return
    if labellings:
        st.html(markup.table([_build_row(labelling) for labelling in labellings], stacked=True))
    subjects: list[LabelProgress | WaitingSuite] = [*going_on, *waiting]
    for proposal, route in {one.proposal: one.route for one in subjects}.items():
        st.html(markup.section(route, f"proposal {proposal}"))
        show_openers(
            [
                *(_build_opener(one) for one in going_on if one.proposal == proposal),
                *(
                    start_labelling.opener(one, label=f"Start {one.suite} …")
                    for one in waiting
                    if one.proposal == proposal
                ),
                *(
                    opener
                    for one in going_on
                    if one.proposal == proposal
                    for opener in operation_openers(LABELS, one)
                ),
            ]
        )
    if labellings:
        page_frame.copy_as_cli(["label", labellings[0].id, "--status"])
    else:
        page_frame.copy_as_cli(["label", waiting[0].proposal, "--plan"])


def _write_headline(going_on: int, waiting: int) -> str:
    texts = [f"{labels.plural(going_on, 'labelling')} to go on with"] if going_on else []
    texts += [f"{labels.plural(waiting, 'labelling')} to start"] if waiting else []
    return ", ".join(texts) or "Nothing to label"


@dialog("Start a labelling", Role.PROPOSER, "start-labels", "rate_review", width="medium")
def start_labelling(form: Form, waiting: WaitingSuite) -> None:
    """Asks who labels, and shows the plan: how many labels it expects."""
    form.say(
        f"Which answers to {strong(waiting.suite)} are better, for the proposal "
        f"{strong(waiting.proposal)} of route {strong(waiting.route)}? Its pairs, its people "
        "and its claim never change."
    )
    actor = current_user.signed_in()
    names = form.text(
        "people",
        "Who labels: names, separated by commas",
        actor.name if actor else "",
        need="Name at least one person.",
    )
    people = [name.strip() for name in names.split(",") if name.strip()]
    if actor is not None and people:
        try:
            plan = label_pairs.plan_labelling(
                page_frame.context(),
                actor,
                waiting.proposal,
                suite=waiting.suite,
                people=people,
            )
        except SwapproofError as error:
            form.need(condition=False, words=f"{error}.")
        else:
            form.say(f"{plan.pairs:,} pairs; {escape(plan.forecast)}.")
    form.submit(
        "Start",
        f"started the labelling of {waiting.suite}.",
        label_pairs.start_labelling,
        waiting.proposal,
        suite=waiting.suite,
        people=people,
    )


def _build_row(labelling: LabelProgress) -> markup.Row:
    missing = [f"{name} {count}" for name, count in labelling.missing.items()]
    agreement = f"{labelling.agreed} of {labelling.both} by two people agree"
    return {
        "Suite": noted(strong(labelling.suite), f"{labelling.route}, {labelling.proposal}"),
        "State": noted(
            markup.state(_find_state(labelling)), labelling.verdict or labelling.closed
        ),
        "Labels": noted(
            escape(f"{_count_labels(labelling.labels)}, {labelling.pairs:,} pairs"),
            agreement if labelling.both else "",
        ),
        "People": noted(
            escape(labels.few(list(labelling.people), 3)),
            f"without a label: {', '.join(missing)}" if missing else "",
        ),
        "Since": escape(f"{labelling.created_at:%d %b %H:%M}"),
    }


def _find_state(labelling: LabelProgress) -> Label:
    if labelling.closed:
        return CLOSED
    if not labelling.ended:
        return GOES_ON
    if labelling.passed:
        return PASSED
    return UNDECIDED if labelling.inconclusive else FAILED


def _build_opener(labelling: LabelProgress) -> Opener:
    """Builds the button that shows the visitor's pairs of a labelling."""
    actor = current_user.signed_in()
    is_own = actor is not None and actor.name in labelling.people
    people = f"The people of {labelling.suite}: {', '.join(labelling.people)}."
    return Opener(
        f"Label {labelling.suite}",
        ":material/rate_review:",
        lambda: _open(labelling.id),
        f"open-{labelling.id}",
        Role.PROPOSER,
        "" if is_own else people,
        primary=is_own,
    )


def _open(labelling: str) -> None:
    st.session_state[OPEN_KEY] = labelling
    st.rerun()


def _show_pair(labelling: str) -> bool:
    """Shows the visitor's next pair with its buttons; returns False without a pair."""
    actor = current_user.signed_in()
    if actor is None or current_user.why_not(Role.PROPOSER):
        del st.session_state[OPEN_KEY]
        return False
    skipped = bool(st.session_state.get(SKIPPED_KEY))
    found = label_pairs.show_next_pair(page_frame.context(), actor, labelling, skipped=skipped)
    if found.pair is None:
        _leave()
        _show_end(found.progress, actor.name)
        return False
    pair = found.pair
    st.html(
        markup.section(
            f"Pair {pair.labelled + 1}", f"you have given {_count_labels(pair.labelled)}"
        )
    )
    panels = [
        _render_panel("Request", pair.request),
        _render_panel("Answer A", pair.a),
        _render_panel("Answer B", pair.b),
    ]
    st.html(f'<div class="sg sg-answers one">{panels[0]}</div>')
    st.html(f'<div class="sg sg-answers">{panels[1]}{panels[2]}</div>')
    marks = _ask_unacceptable(pair)
    with st.container(horizontal=True, key="label-choices"):
        for key, words, choice in CHOICES:
            if st.button(words, key=f"choice-{key}", shortcut=key):
                _give(pair, choice, marks)
    if st.button("Stop for now", key="stop-labels", type="tertiary", shortcut="q"):
        _leave()
        st.rerun()
    return True


def _leave() -> None:
    del st.session_state[OPEN_KEY]
    st.session_state[SKIPPED_KEY] = False


def _return_to_skipped(labelling: str) -> None:
    st.session_state[OPEN_KEY] = labelling
    st.session_state[SKIPPED_KEY] = True


def _render_panel(heading: str, text: str) -> str:
    """Renders a text below its heading. Notes the length of a cut text."""
    body = escape(text[: markup.SHOWN_CHARACTERS])
    cut = ""
    if len(text) > markup.SHOWN_CHARACTERS:
        shown = f"The first {markup.SHOWN_CHARACTERS:,} of {len(text):,} characters."
        cut = f'<p class="note">{shown}</p>'
    return (
        f'<section class="answer"><header><b>{escape(heading)}</b></header>'
        f"{markup.scrolled_text(body)}{cut}</section>"
    )


def _count_labels(count: int) -> str:
    return format_quantity(count, "label")


def _ask_unacceptable(pair: ShownPair) -> Sequence[ShownAnswer]:
    """Shows a button for each answer that marks it, and returns the marked answers. A checkbox
    would take the focus, and the browser would send no single key to the page.
    """
    place = f"marks-{pair.labelling}-{pair.number}"
    marked: set[ShownAnswer] = st.session_state.setdefault(place, set())
    with st.container(horizontal=True, key="label-marks"):
        for key, answer in MARKS:
            letter = answer.value.upper()
            state = "is marked unacceptable ✓" if answer in marked else "is unacceptable"
            st.button(
                f"{letter} {state}",
                key=f"mark-{answer.value}",
                shortcut=key,
                on_click=_turn_mark,
                args=(place, answer),
            )
    return sorted(marked)


def _turn_mark(place: str, answer: ShownAnswer) -> None:
    st.session_state[place] ^= {answer}


def _give(
    pair: ShownPair,
    choice: LabelChoice,
    marks: Sequence[ShownAnswer],
) -> None:
    ctx = page_frame.context()
    if choice is LabelChoice.SKIP:  # else a skipped pair that is skipped again comes next
        st.session_state[SKIPPED_KEY] = False

    def give(actor: Actor) -> None:
        label_pairs.give_label(
            ctx, actor, pair.labelling, pair.number, choice, unacceptable=marks
        )

    current_user.attempt(give, lambda _: "")


def _show_end(progress: LabelProgress, person: str) -> None:
    if progress.ended:
        heading = progress.end_text
        text = progress.verdict
    else:
        heading = "You have no open pair."
        text = progress.missing_text
    st.html(markup.banner(heading, text))
    if not progress.ended and progress.missing.get(person):
        st.button(
            "Show skipped pairs again",
            key="skipped-labels",
            shortcut="k",
            on_click=_return_to_skipped,
            args=(progress.id,),
        )


if __name__ == "__main__":
    page_frame.show_page("The labels", show)
