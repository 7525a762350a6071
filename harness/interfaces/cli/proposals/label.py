"""`swapproof label` shows pairs of answers in the terminal, one after another, until the labels
suffice. It needs nothing but text and single keys, so it works over SSH.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import click

from harness.frame.errors import InputError, NotFound
from harness.frame.formatting import escape_controls, format_quantity
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import arg, command, opt
from harness.interfaces.cli.frame.session import Session
from harness.proposals.labels import label_closing, label_pairs
from harness.proposals.labels.label_pairs import ShownPair
from harness.proposals.labels.label_progress import LabelProgress
from harness.proposals.labels.labelling import LabelChoice, ShownAnswer

CHOICES: Final[Mapping[str, LabelChoice]] = {
    "a": LabelChoice.A,
    "b": LabelChoice.B,
    "t": LabelChoice.TIE,
    "?": LabelChoice.CANNOT_TELL,
    "s": LabelChoice.SKIP,
}
_UNACCEPTABLE: Final = "u"
_QUIT: Final = "q"
_KEYS: Final = (
    "a: A is better, b: B is better, t: equally good, ?: I can't tell, s: skip, "
    "u: an answer is unacceptable, q: stop for now"
)
_MARKS: Final[Mapping[str, Sequence[ShownAnswer]]] = {
    "a": (ShownAnswer.A,),
    "b": (ShownAnswer.B,),
    "2": (ShownAnswer.A, ShownAnswer.B),
    "n": (),
}
_INTERRUPTS: Final = ("\x03", "\x04")  # Ctrl-C and Ctrl-D in a terminal without line mode
_FAILED_CODE: Final = 3
_INCONCLUSIVE_CODE: Final = 4


@command(name="label", example="swapproof label support")
def label(
    session: Session,
    name: str = arg("ROUTE-OR-SUITE"),
    *,
    suite: str | None = opt(
        "The suite, if people label several of a proposal. [default: the first one without "
        "an ended labelling]",
        metavar="SUITE",
    ),
    people: tuple[str, ...] = opt(
        "At the start: who labels. Repeat it for several people. [default: you]",
        "--person",
        metavar="NAME",
    ),
    plan: bool = opt("At the start: show the plan, and start nothing."),
    yes: bool = opt("At the start: do not ask.", "--yes", "-y"),
    skipped: bool = opt("Show the pairs again that you skipped."),
    status: bool = opt("Show how far the labels are, and no pair."),
    close: str | None = opt(
        "Close a labelling that cannot end, and its proposal. Needs an approver.",
        metavar="REASON",
    ),
) -> int:
    """Compare the answers of two models, blind, until the labels suffice.

    Each screen has a request and two answers in random order. One key answers:
    a or b for the better answer, t for a tie, ? for "can't tell", s to skip,
    u to mark an unacceptable answer, q to stop. The next call continues.

    The first call shows the plan, and asks. Without a terminal, it starts nothing.

    Exit code: 0 passed or stopped, 3 failed, 4 inconclusive.
    """
    labelling = label_pairs.find_labelling(session.context, name, suite)
    if labelling and (people or plan):
        raise InputError(
            f"{labelling} has begun: its people and its claim were fixed then; leave out "
            "--person and --plan"
        )
    if not labelling and (status or skipped or close is not None):
        raise NotFound(
            f"{name!r} has no labelling yet: `swapproof label {name} --plan` shows the plan"
        )
    if close is not None:
        return _close(session, labelling, close)
    if not labelling:
        started = _start(session, name, people, suite=suite, plan=plan, yes=yes)
        if started is None:
            return 0
        labelling = started.id
        if session.actor.name not in started.people:
            return 0
    if status or output.wants_document():
        return _show_status(label_pairs.load_progress(session.context, labelling))
    return _label(session, labelling, skipped=skipped)


def _start(
    session: Session,
    name: str,
    people: Sequence[str],
    *,
    suite: str | None,
    plan: bool,
    yes: bool,
) -> LabelProgress | None:
    """Shows the plan, asks, and starts the labelling; None if it was not started."""
    proposal, named_suite = label_pairs.find_proposal(session.context, name)
    suite = suite or named_suite
    planned = session.decide(label_pairs.plan_labelling, proposal, suite=suite, people=people)
    if (plan or not yes) and output.wants_document():
        output.document(planned)
        return None
    output.note(
        f"{format_quantity(planned.pairs, 'pair')} of suite {planned.suite} of "
        f"{planned.proposal}, labelled by {', '.join(planned.people)}; {planned.forecast}"
    )
    if plan:
        return None
    output.note("a labelling starts once for each proposal, and fixes pairs, people and claim")
    if not yes and _read_key("start it? y, n: ") != "y":
        output.note("nothing was started")
        return None
    started = session.decide(label_pairs.start_labelling, proposal, suite=suite, people=people)
    output.note(f"{started.id} has begun")
    return started


def _close(session: Session, labelling: str, reason: str) -> int:
    closed = session.decide(label_closing.close_labelling, labelling, reason)
    output.answer(closed, f"{labelling} is closed: {closed.closed}")
    return 0


def _show_status(progress: LabelProgress) -> int:
    if not output.documented(progress):
        missing = ", ".join(f"{name} {count}" for name, count in progress.missing.items())
        output.facts(
            [
                ("labelling", progress.id),
                ("route", progress.route),
                ("proposal", progress.proposal),
                ("suite", progress.suite),
                ("people", ", ".join(progress.people)),
                ("pairs", progress.pairs),
                ("labels", progress.labels),
                ("missing labels", missing or "none"),
                ("labelled by two", f"{progress.both}; {progress.agreed} agree"),
                ("plan", progress.forecast),
                (
                    "verdict",
                    progress.verdict or progress.closed or "not yet: more labels decide",
                ),
            ]
        )
    return _exit_code(progress) if progress.ended else 0


def _label(session: Session, labelling: str, *, skipped: bool) -> int:
    output.note(_KEYS)
    while True:
        found = session.decide(label_pairs.show_next_pair, labelling, skipped=skipped)
        if found.pair is None:
            return _end(found.progress, session.actor.name)
        _show_pair(found.pair)
        answer = _read_answer()
        if answer is None:
            output.note(
                f"stopped after {format_quantity(found.pair.labelled, 'label')} of yours; the "
                "same command continues"
            )
            return 0
        choice, unacceptable = answer
        session.decide(
            label_pairs.give_label,
            labelling,
            found.pair.number,
            choice,
            unacceptable=unacceptable,
        )


def _show_pair(pair: ShownPair) -> None:
    click.echo(f"\n── pair {pair.labelled + 1} ── request")
    click.echo(escape_controls(pair.request))
    for letter, text in (("A", pair.a), ("B", pair.b)):
        click.echo(f"\n── answer {letter}")
        click.echo(escape_controls(text))


def _read_answer() -> tuple[LabelChoice, Sequence[ShownAnswer]] | None:
    """Reads keys until one is an answer; None to stop."""
    unacceptable: Sequence[ShownAnswer] = ()
    while True:
        key = _read_key("a, b, t, ?, s, u or q: ")
        if key == _QUIT:
            return None
        if key == _UNACCEPTABLE:
            mark = _read_key("unacceptable: a, b, 2 for both, n for none: ")
            unacceptable = _MARKS.get(mark, unacceptable)
        elif key in CHOICES:
            return CHOICES[key], unacceptable
        else:
            output.note(_KEYS)


def _read_key(prompt: str) -> str:
    click.echo(prompt, nl=False)
    try:
        key = click.getchar().lower()
    except (EOFError, KeyboardInterrupt):
        key = _QUIT
    except OSError:  # without stdin, click opens /dev/tty
        raise InputError(
            "this process has no terminal for the keys. If a labelling has begun, `swapproof "
            "label ROUTE` continues it in a terminal; without one, use the dashboard's page "
            "Labels, or the API: `POST "
            "/api/v1/proposals/{proposal}/labellings` starts a labelling, and `POST "
            "/api/v1/labellings/{labelling}/next` shows a pair"
        ) from None
    if not key or key in _INTERRUPTS:
        key = _QUIT
    click.echo(key)
    return key


def _end(progress: LabelProgress, person: str) -> int:
    if progress.ended:
        click.echo(f"{progress.end_text} {progress.verdict}")
        return _exit_code(progress)
    click.echo(f"You have no open pair. {progress.missing_text}")
    if progress.missing.get(person):
        click.echo("`--skipped` shows the pairs again that you skipped.")
    return 0


def _exit_code(progress: LabelProgress) -> int:
    if progress.passed:
        return 0
    return _INCONCLUSIVE_CODE if progress.inconclusive else _FAILED_CODE
