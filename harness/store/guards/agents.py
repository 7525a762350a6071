"""Guards of agents: transcripts only grow, an answer ends once and with its turn, whose a row
is does not change, a switch request is decided once and approved with its grants, and a grant
is only ever revoked.
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
from harness.store.schema.agents import (
    agent,
    agent_grant,
    agent_message,
    agent_session,
    agent_switch,
)

_OPEN_SESSION: Final = (
    "EXISTS (SELECT 1 FROM agent_session s WHERE s.id = {0}.session AND s.state = 'open')"
)
_ANSWER_UNDER_WAY: Final = (
    "EXISTS (SELECT 1 FROM agent_message m WHERE m.session = NEW.session"
    " AND m.state = 'streaming')"
)
_REGISTERED: Final = "registered: whose a row is does not change"
_OF_AN_AGENT: Final = ("description", "instructions", "tools")
# The agents' own words, which go when their session does.
_BLANKED: Final = ("model_requested", "reason", "omissions", "figures")

AGENTS: Final = read_guards(f"""
INSERT ON agent
    {taken("agent", "id")}
UPDATE ON agent
    {_REGISTERED}
        {changes("id", "owner_key", "created_at")}
    append_only: a deleted agent does not change
        OLD.deleted_at IS NOT NULL AND ({changes_beside(agent, *_OF_AN_AGENT)}
        OR {rewords(_OF_AN_AGENT)})

INSERT ON agent_session
    {taken("agent_session", "id")}
UPDATE ON agent_session
    {_REGISTERED}
        {changes("id", "agent", "user_id", "parent", "depth", "created_at")}
    append_only: a closed session does not change
        OLD.state = 'closed' AND ({changes_beside(agent_session, "metadata")}
        OR {rewords(["metadata"])})
    session_busy: its turn ends before the session is closed
        NEW.state = 'closed' AND EXISTS (SELECT 1 FROM agent_turn t
        WHERE t.session = NEW.id AND t.state = 'running')

INSERT ON agent_turn
    {taken("agent_turn", "id")}
    session_closed: there is no such open session
        NOT {_OPEN_SESSION.format("NEW")}
UPDATE ON agent_turn
    {_REGISTERED}
        {changes("id", "session", "owner", "begun_at", "client", "key", "request_hash")}
    append_only: a turn that has ended does not change
        OLD.state <> 'running'
    answer_under_way: its answer ends before the turn
        NEW.state <> 'running' AND {_ANSWER_UNDER_WAY}

INSERT ON agent_message
    {taken("agent_message", "id")}
    {taken("agent_message", "session", "position")}
    turn_missing: a message belongs to the running turn of its session
        NOT EXISTS (SELECT 1 FROM agent_turn t WHERE t.id = NEW.turn
        AND t.session = NEW.session AND t.state = 'running')
    answer_under_way: the answer before it has not ended
        {_ANSWER_UNDER_WAY}
    position_follows: messages are numbered without gaps
        NEW.position <> 1 + (SELECT COALESCE(MAX(m.position), 0)
        FROM agent_message m WHERE m.session = NEW.session)
UPDATE ON agent_message
    {_REGISTERED}
        {changes("id", "session", "position", "turn", "role", "created_at")}
    append_only: an answer under way does nothing but end
        OLD.state = 'streaming' AND NEW.state = 'streaming'
    append_only: this message has ended, and does not change
        OLD.state <> 'streaming' AND ({changes_beside(agent_message)})
DELETE ON agent_message
    kept: the session is closed first
        {_OPEN_SESSION.format("OLD")}

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
