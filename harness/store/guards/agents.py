"""Guards of consents: a switch request is decided once and approved with its grants, and a
grant is only ever revoked. Transcripts are no proof; constraints and locks keep their order.
"""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from typing import Final

from harness.store.guards.guard import (
    changes,
    changes_beside,
    closed_once,
    read_guards,
    rewords,
    taken,
)
from harness.store.schema.agents import agent_grant, agent_switch

# The agents' own words, which go when their session does.
_BLANKED: Final = ("model_requested", "reason", "omissions", "figures")

AGENTS: Final = read_guards(f"""
INSERT ON agent_switch
    {taken("agent_switch", "id")}
    switch_asked: a switch is asked for before it is decided
        NEW.state <> 'pending'
UPDATE ON agent_switch
    append_only: the content of a switch request does not change
        {changes("id", "agent", "session", "targets", "for_children", "asked_at", "expires_at")}
    append_only: a switch is decided once
        OLD.state <> 'pending' AND ({changes_beside(agent_switch, *_BLANKED)})
    append_only: the words of a switch are blanked or stay
        {rewords(_BLANKED, blanks=["", "[]", "{}"])}
    grant_missing: an approved switch has a grant for each of its targets
        NEW.state = 'approved' AND OLD.state = 'pending'
        AND LENGTH[NEW.targets] <> (SELECT count(*) FROM agent_grant g
        WHERE g.request = NEW.id AND g.revoked_at IS NULL)
DELETE ON agent_switch
    append_only: agent_switch is never deleted

INSERT ON agent_grant
    {taken("agent_grant", "id")}
    grant_given: a grant is given before it is revoked
        NEW.revoked_at IS NOT NULL
    switch_missing: no pending switch request of this session asks for this grant
        NEW.request IS NOT NULL AND NOT EXISTS (SELECT 1 FROM agent_switch r
        WHERE r.id = NEW.request AND r.agent = NEW.agent AND r.session = NEW.session
        AND r.state = 'pending')
{
    closed_once(
        agent_grant, "grant is revoked", "grant is only ever revoked", "granted", ["revoked_at"]
    )
}
""")
