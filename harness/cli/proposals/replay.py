"""`swapgate gate replay` decides a verdict, a canary's action or a shadow stage again from
what is stored, and says whether it is the same; or what other terms would have said (no
proof).
"""

import sys

import click

from harness.cli.frame import output
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session, pass_session
from harness.cli.proposals.comparison import HEADINGS, suite_rows
from harness.control.canary import audit
from harness.control.canary.audit import ReplayedAction
from harness.control.evals import verdict_replay
from harness.control.evals.verdict_replay import OtherTerms, ReplayedVerdict
from harness.control.serialize import to_plain
from harness.control.shadow import stage_audit
from harness.control.shadow.stage_audit import ReplayedShadow
from harness.domain.errors import InputError
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.verdict import Verdict
from harness.gate.text.sentences import reason_text

DIFFERS = 1
NO_PROOF = (
    "This is no proof, and nothing is stored: terms that are chosen after the answers are "
    "known keep no error rate. Propose again with these terms."
)


@click.command()
@click.argument("decision", metavar="VERDICT|ACTION")
@click.option(
    "--claim",
    type=click.Choice([claim.value for claim in Claim]),
    help="Decide again with this claim.",
)
@click.option(
    "--margin", type=float, metavar="SHARE", help="Decide again with this allowed loss."
)
@click.option(
    "--alpha", type=float, metavar="SHARE", help="Decide again with this error probability."
)
@click.option(
    "--min-saving",
    type=float,
    metavar="SHARE",
    help="Decide again with this required saving.",
)
@pass_session
def replay(
    session: Session,
    *,
    decision: str,
    claim: str | None,
    margin: float | None,
    alpha: float | None,
    min_saving: float | None,
) -> None:
    """Decide a verdict again from what is stored.

    It must come out the same, to the byte. VERDICT is its id, or a proposal's. With --claim,
    --margin, --alpha or --min-saving: what the same answers would have said on other terms.
    ACTION is the number of an audit event: what a canary did, decided again from its blocks, or
    what the shadow before it did, from the figures that the event keeps.
    Exit code: 1 when the stored decision is not what its samples or blocks say.
    """
    terms_given = (claim, margin, alpha, min_saving) != (None, None, None, None)
    if decision.isdigit():
        if terms_given:
            raise InputError("other terms are for verdicts: an action has none of its own")
        sys.exit(0 if _replay_action(session, int(decision)) else DIFFERS)
    if not terms_given:
        found = verdict_replay.replay_verdict(session.context, decision)
        _print_replayed(found, as_json=session.json)
        sys.exit(0 if found.agrees else DIFFERS)
    terms = OtherTerms(Claim(claim) if claim else None, margin, alpha, min_saving)
    verdict = verdict_replay.what_if(session.context, decision, terms)
    _print_what_if(decision, verdict, as_json=session.json)


def _replay_action(session: Session, number: int) -> bool:
    """Whether it came out the same."""
    if stage_audit.has_inputs(session.context, number):
        of_shadow = stage_audit.replay_stage(session.context, number)
        _print_shadow(of_shadow, as_json=session.json)
        return of_shadow.agrees
    action = audit.replay_action(session.context, number)
    _print_action(action, as_json=session.json)
    return action.agrees


def _print_replayed(verdict: ReplayedVerdict, *, as_json: bool) -> None:
    if as_json:
        shown = {
            "verdict": verdict.stored.id,
            "outcome": verdict.stored.outcome,
            "agrees": verdict.agrees,
            "stored_sha256": verdict.stored_sha256,
            "again_sha256": verdict.again_sha256,
            "items": dict(verdict.items),
            "differences": list(verdict.differences),
        }
        output.document(shown)
        return
    output.facts(
        [
            ("verdict", verdict.stored.id),
            ("says", f"{verdict.stored.words}: {reason_text(verdict.stored)}"),
            ("items", ", ".join(f"{suite} {n}" for suite, n in verdict.items.items())),
            ("stored", f"sha256 {verdict.stored_sha256}"),
            ("again", f"sha256 {verdict.again_sha256}"),
        ]
    )
    if verdict.agrees:
        click.echo("The same, to the byte; and its pairs are what the stored samples say.")
    for difference in verdict.differences:
        click.echo(f"NOT THE SAME: {difference}")


def _print_action(action: ReplayedAction, *, as_json: bool) -> None:
    if as_json:
        output.document({**_plain_action(action), "agrees": action.agrees})
        return
    event, reason = action.event, action.event.details.get("reason", "")
    output.facts(
        [
            ("action", f"{event.action}, event {event.number}, by {event.actor}"),
            (
                "of",
                (f"{event.subject}, rollout {action.rollout}, {timestamp(event.at)} UTC"),
            ),
            ("said", reason),
            (
                "evidence",
                action.decided.reason if action.decided else "cannot be decided again",
            ),
            ("blocks", f"{action.blocks:,}"),
            ("stored", f"sha256 {action.stored_sha256}"),
            ("again", f"sha256 {action.again_sha256}"),
        ]
    )
    if action.agrees:
        click.echo("The same, to the byte, from the blocks that are stored.")
    for difference in action.differences:
        click.echo(f"NOT THE SAME: {difference}")


def _print_shadow(shadow: ReplayedShadow, *, as_json: bool) -> None:
    if as_json:
        shown = {
            "event": shadow.event.number,
            "action": shadow.event.action,
            "proposal": shadow.proposal,
            "stored_sha256": shadow.stored_sha256,
            "again_sha256": shadow.again_sha256,
            "pairs": shadow.pairs,
            "decided": to_plain(shadow.decided),
            "differences": list(shadow.differences),
            "agrees": shadow.agrees,
        }
        output.document(shown)
        return
    event = shadow.event
    output.facts(
        [
            ("action", f"{event.action}, event {event.number}, by {event.actor}"),
            ("of", f"proposal {shadow.proposal}, {timestamp(event.at)} UTC"),
            ("said", event.details.get("reason", "")),
            (
                "evidence",
                shadow.decided.reason if shadow.decided else "cannot be decided again",
            ),
            ("pairs", f"{shadow.pairs:,}"),
            ("stored", f"sha256 {shadow.stored_sha256}"),
            ("again", f"sha256 {shadow.again_sha256}"),
        ]
    )
    if shadow.agrees:
        click.echo("The same, to the byte, from the figures that the event keeps.")
    for difference in shadow.differences:
        click.echo(f"NOT THE SAME: {difference}")


def _plain_action(action: ReplayedAction) -> dict[str, object]:
    return {
        "event": action.event.number,
        "action": action.event.action,
        "rollout": action.rollout,
        "stored_sha256": action.stored_sha256,
        "again_sha256": action.again_sha256,
        "blocks": action.blocks,
        "decided": to_plain(action.decided),
        "differences": list(action.differences),
    }


def _print_what_if(decision: str, verdict: Verdict | None, *, as_json: bool) -> None:
    if as_json:
        output.document({"of": decision, "proof": False, "verdict": to_plain(verdict)})
        return
    if verdict is None:
        click.echo("WHAT IF: no verdict. On these terms the gate would ask for more answers.")
    else:
        click.echo(f"WHAT IF: {verdict.words}: {reason_text(verdict)}")
        output.table(HEADINGS, suite_rows(verdict), empty="no suites")
    output.note(NO_PROOF)
