"""The sentences of the audit log: who did what, for people. Pure.

The log stores an action's code, its subject and details. A sentence leaves most details out;
`swapproof audit tail --json` and the Audit page's export show all of them.
"""

from collections.abc import Mapping
from typing import Any, Final

from harness.frame.formatting import format_excerpt
from harness.frame.signing.audit import AuditEvent

MOST_REASON: Final = 100  # characters of a reason

INSTALLATION: Final = "the installation"  # the subject of an event without one

# By action: the words after the actor. `{}` stands for the subject, such as `route support`.
PHRASES: Final[Mapping[str, str]] = {
    "agent.grant": "granted a model to {}",
    "agent.grant_end": "ended the expired grant {}",
    "agent.grant_revoke": "revoked the grant {}",
    "agent.switch_approve": "approved the switch of {}",
    "agent.switch_reject": "rejected the switch of {}",
    "break_glass.confirm": "confirmed the emergency change {}",
    "break_glass.end": "ended the emergency change {}",
    "break_glass.propose": "proposed the emergency change {}",
    "candidates.round": "began a round of candidates for {}",
    "canary.abort": "ended the canary of {}",
    "canary.acknowledge": "acknowledged the routers' faults in {}",
    "canary.advance": "raised the share of the canary of {}",
    "canary.baked": "ended the bake of {}: the candidate keeps the route",
    "canary.base_changed": "ended the canary of {}: the route changed",
    "canary.callers": "read the hashed callers of the canary of {}",
    "canary.enough": "began to decide on a step of {}: it has enough callers",
    "canary.finish": "ended the bake of {} early",
    "canary.harm": "rolled {} back for harm",
    "canary.pause": "paused the canary of {}",
    "canary.promote": "promoted the candidate of {}",
    "canary.proven": "certified the last step of {}",
    "canary.resume": "resumed the canary of {}",
    "canary.silent": "paused {}: it had no traffic",
    "canary.stale": "ended the canary of {}: its verdict is no longer proof",
    "canary.step_done": "raised the share of {} after a step",
    "canary.undecided": "paused {}: a step's deadline passed without enough evidence",
    "capture.export": "exported captures of {}",
    "capture.purge": "deleted captures of {}",
    "capture.read": "read captures of {}",
    "credential.login": "signed in at {}",
    "credential.logout": "signed out at {}",
    "credential.put": "stored a key of {}",
    "credential.remove": "removed a key of {}",
    "credential.rotate_encryption": "encrypted {} with the newest key",
    "dashboard.end": "ended {}",
    "dashboard.link": "created a sign-in link for {}",
    "dashboard.link_replayed": "refused a link that was opened twice, for {}",
    "dashboard.sign_in": "signed in to the dashboard, {}",
    "dashboard.sign_out": "signed out of the dashboard, {}",
    "database.accept_restore": "accepted the restored {}",
    "database.remove_forged": "removed forged rows of {}",
    "database.sign_again": "signed rows of {} with a new key",
    "drift.baseline": "began to watch {} for drift",
    "drift.found": "found that the answers of {} changed",
    "drift.run": "started a drift check of {}",
    "eval.cancel": "cancelled {}",
    "eval.run": "started {}",
    "judge.calibrated": "measured how often {} agrees with people",
    "key.create": "created {}",
    "key.limits": "changed the limits of {}",
    "key.opt_outs": "changed the opt-outs of {}",
    "key.revoke": "revoked {}",
    "labelling.close": "closed the labelling {}",
    "labelling.end": "gave the last label of the labelling {}",
    "labelling.start": "started the labelling {}",
    "model.add": "registered {}",
    "person.link": "linked {} to one person",
    "person.separate": "separated {}",
    "proposal.accept_cost": "accepted the cost of {}",
    "proposal.approve": "approved {}",
    "proposal.approved": "opened the canary of {}",
    "proposal.base_changed": "ended {}: the route changed",
    "proposal.cancelled": "cancelled {}",
    "proposal.confirm_same_model": "confirmed that {} serves the same model",
    "proposal.create": "proposed a swap, {}",
    "proposal.expired": "ended {}: it waited too long",
    "proposal.failed": "decided that {} failed",
    "proposal.frozen": "holds {} until the end of a freeze",
    "proposal.harm": "ended {} for harm",
    "proposal.harness_mismatch": "ended {}: both models were measured by different rules",
    "proposal.healthy": "promoted the candidate of {}",
    "proposal.inconclusive": "found not enough evidence for {}",
    "proposal.infra_error": "could not measure {}: the infrastructure failed",
    "proposal.infra_limit": "ended {}: the infrastructure failed for too long",
    "proposal.labels": "let {} wait for people's labels",
    "proposal.not_chosen": "ended {}: another candidate was better",
    "proposal.passed": "passed {}",
    "proposal.passed_needs_approval": "passed {}, which waits for an approval",
    "proposal.refused": "rejected {}",
    "proposal.retry": "measures {} again",
    "proposal.stale": "ended {}: its evidence is no longer proof",
    "proposal.start": "started the evals of {}",
    "provider.discover": "read the models of {}",
    "provider.price": "set a price of {}",
    "provider.put": "stored {}",
    "provider.remove": "removed {}",
    "route.create": "created {}",
    "route.fallbacks": "changed the fallbacks of {}",
    "route.rollback": "rolled back {}",
    "route.settings": "changed the settings of {}",
    "shadow.start": "started {}",
    "shadow.stop": "stopped {}",
    "signing_key.retire": "retired {}",
    "signing_key.rotate": "rotated {}",
    "spending.cap": "changed the monthly cap of {}",
    "suite.add": "added {}",
    "suite.draw": "drew {}",
    "switch.lift": "lifted {}",
    "switch.throw": "threw {}",
    "user.delete": "deleted the data of {}",
    "verdict": "decided {}",
    "waiver.add": "let a fallback of {} serve without a verdict",
}
# The details that a sentence names after its subject, in this order.
_NAMED: Final = (
    "name",
    "role",
    "kind",
    "api_base",
    "provider",
    "model",
    "route",
    "candidate",
    "outcome",
    "key",
)
_MOST_NAMED: Final = 3


def describe_event(event: AuditEvent) -> str:
    """Describes an event in one sentence, without its number and time."""
    before, after = split_phrase(event)
    subject = event.subject or INSTALLATION
    change = f"{before}{subject}{after}{_describe_details(event.details)}"
    return f"{_format_actor(event)} {change}"


def split_phrase(event: AuditEvent) -> tuple[str, str]:
    """Returns the words of an event's sentence before its subject, and the words after it."""
    before, _, after = PHRASES.get(event.action, f"{event.action} {{}}").partition("{}")
    return before, after


def _format_actor(event: AuditEvent) -> str:
    return f"{event.actor} ({event.key})" if event.key else event.actor


def _describe_details(details: Mapping[str, Any]) -> str:
    """Names the most telling details and the reason; empty if there are none."""
    values = [str(details[name]) for name in _NAMED if isinstance(details.get(name), str)]
    named = f" ({', '.join(values[:_MOST_NAMED])})" if any(values) else ""
    reason = str(details.get("reason") or "")
    return f"{named}: {format_excerpt(reason, MOST_REASON)}" if reason else named
