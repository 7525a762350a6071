"""What was done to a canary and what each step rested on, as rows of a table. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dashboard.text import labels
from dashboard.text.html import escape, strong
from harness.domain.canary.rollout import Rollout
from harness.domain.formatting import format_number
from harness.domain.operations.audit import AuditEvent

HEADS: Final = ("When", "What", "Why", "Seen until then")
NOTE: Final = (
    "The audit log keeps each with the evidence that it rested on; "
    "`swapgate replay EVENT` decides it again from the stored blocks."
)
_WORDS: Final[Mapping[str, str]] = {
    "canary.enough": "enough exposures",
    "canary.promote": "promoted",
    "canary.proven": "promoted",
    "canary.harm": "rolled back",
    "canary.baked": "the bake is over",
    "canary.base_changed": "ended: the route was changed",
    "canary.stale": "ended: the candidate is another model",
    "canary.silent": "paused: too few exposures",
    "canary.undecided": "paused: not enough evidence",
}
_UPWARD: Final = frozenset({"canary.step_done", "canary.advance"})


def rows(rollout: Rollout, moves: Iterable[AuditEvent]) -> Sequence[Sequence[str]]:
    """Cells of HTML, in the order of `moves`."""
    return [
        (
            f"{escape(labels.date_time(each.at))}<br>event {each.number}",
            f"{strong(_what(rollout, each))}<br>by {escape(each.actor)}",
            escape(each.details.get("reason", "")),
            "<br>".join(map(escape, _seen(each.details))),
        )
        for each in moves
    ]


def _what(rollout: Rollout, event: AuditEvent) -> str:
    if event.action in _UPWARD:
        before = _step(event.details)
        steps = rollout.policy.steps
        if before is not None and before + 1 < len(steps):
            old, new = (labels.weight(each.weight_bps) for each in steps[before : before + 2])
            return f"{old} to {new}"
    plain = event.action.removeprefix("canary.").replace("_", " ")
    return _WORDS.get(event.action, plain)


def _step(details: Mapping[str, Any]) -> int | None:
    """At which it stood before."""
    inputs = details.get("inputs")
    found = inputs.get("step") if isinstance(inputs, Mapping) else None
    return found if isinstance(found, int) else None


def _seen(details: Mapping[str, Any]) -> Sequence[str]:
    """The evidence in figures; empty for a person's hand, which rests on none."""
    if "canary_units" not in details:
        return ()
    said = [
        f"candidate: {details['canary_failures']:,} of {details['canary_units']:,} failed",
        f"incumbent: {details['control_failures']:,} of {details['control_units']:,}",
    ]
    limit = float(details["rollback_at"])
    most = max(0.0, float(details["log_e_max"]) / limit) if limit else 0.0
    said.append(f"evidence of harm at most {most * 100:.0f} % of the rollback level")
    certificate, wanted = float(details["certificate"]), float(details["certificate_at"])
    said.append(
        f"certificate of no harm {format_number(certificate)} of {format_number(wanted)}"
    )
    return said
