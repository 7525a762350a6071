"""Revokes an agent's grant of a literal model: routers refuse it within seconds, and a session
on it answers again once it is switched to another model.
"""

from harness.control import audit
from harness.control.context import Context
from harness.domain.agents.grant import AgentGrant
from harness.domain.errors import Conflict
from harness.domain.operations.access import Actor, Role


def revoke_grant(ctx: Context, actor: Actor, id_: str, reason: str = "") -> AgentGrant:
    """Raises NotAllowed below an approver, NotFound, Conflict for one that is revoked."""
    actor.require(Role.APPROVER)
    with ctx.store.write() as tx:
        known = tx.agent_grants.get(id_)
        if known.revoked_at is not None:
            raise Conflict(f"the grant {id_} is revoked already")
        revoked = tx.agent_grants.revoke(id_, ctx.clock.now())
        details = {"grant": id_, "target": revoked.target_name, "reason": reason}
        audit.record(ctx, tx, actor, "agent.grant_revoke", f"agent {revoked.agent}", details)
    return revoked
