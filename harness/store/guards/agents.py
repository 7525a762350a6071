"""Guards of agents: transcripts only grow, an answer ends once and with its turn, whose a row
is does not change, a switch request is decided once and approved with its grants, and a grant
is only ever revoked.
"""

from typing import Final

import sqlalchemy as sa

from harness.store.guards.guard import Guard, Rule, always, changes, rewords, taken
from harness.store.schema.agents import agent, agent_grant, agent_switch
from harness.store.schema.columns import SIGNATURE
from harness.store.schema.sessions import agent_message, agent_session

_OPEN_SESSION: Final = (
    "EXISTS (SELECT 1 FROM agent_session s WHERE s.id = {0}.session AND s.state = 'open')"
)
_ANSWER_UNDER_WAY: Final = (
    "EXISTS (SELECT 1 FROM agent_message m WHERE m.session = NEW.session"
    " AND m.state = 'streaming')"
)


def _guard_insert(table: str, *rules: Rule) -> Guard:
    return Guard(f"{table}_guard", table, "INSERT", (taken(table, "id"), *rules))


def _guard_update(table: str, *rules: Rule) -> Guard:
    return Guard(f"{table}_no_rewrite", table, "UPDATE", rules)


def _guard_delete(table: str, *rules: Rule) -> Guard:
    return Guard(f"{table}_no_delete", table, "DELETE", rules)


def _changes_beside(table: sa.Table, *columns: str) -> str:
    """Another column than these changes."""
    return changes(*(column.name for column in table.c if column.name not in columns))


def _registered(*columns: str) -> Rule:
    return ("registered: whose a row is does not change", changes("id", *columns))


_OF_AN_AGENT: Final = ("description", "instructions", "tools")
_AGENT: Final = (
    _guard_insert("agent"),
    _guard_update(
        "agent",
        _registered("owner_key", "created_at"),
        (
            "append_only: a deleted agent does not change",
            (
                f"OLD.deleted_at IS NOT NULL AND ({_changes_beside(agent, *_OF_AN_AGENT)}"
                f" OR {rewords(_OF_AN_AGENT)})"
            ),
        ),
    ),
)

_SESSION: Final = (
    _guard_insert("agent_session"),
    _guard_update(
        "agent_session",
        _registered("agent", "user_id", "parent", "depth", "created_at"),
        (
            "append_only: a closed session does not change",
            (
                f"OLD.state = 'closed' AND ({_changes_beside(agent_session, 'metadata')}"
                f" OR {rewords(['metadata'])})"
            ),
        ),
        (
            "session_busy: its turn ends before the session is closed",
            (
                "NEW.state = 'closed' AND EXISTS (SELECT 1 FROM agent_turn t"
                " WHERE t.session = NEW.id AND t.state = 'running')"
            ),
        ),
    ),
)

_TURN: Final = (
    _guard_insert(
        "agent_turn",
        (
            "session_closed: there is no such open session",
            f"NOT {_OPEN_SESSION.format('NEW')}",
        ),
    ),
    _guard_update(
        "agent_turn",
        _registered("session", "owner", "begun_at"),
        ("append_only: a turn that has ended does not change", "OLD.state <> 'running'"),
        (
            "answer_under_way: its answer ends before the turn",
            f"NEW.state <> 'running' AND {_ANSWER_UNDER_WAY}",
        ),
    ),
)

_MESSAGE: Final = (
    _guard_insert(
        "agent_message",
        taken("agent_message", "session", "position"),
        (
            "turn_missing: a message belongs to the running turn of its session",
            (
                "NOT EXISTS (SELECT 1 FROM agent_turn t WHERE t.id = NEW.turn"
                " AND t.session = NEW.session AND t.state = 'running')"
            ),
        ),
        ("answer_under_way: the answer before it has not ended", _ANSWER_UNDER_WAY),
        (
            "position_follows: messages are numbered without gaps",
            (
                "NEW.position <> 1 + (SELECT COALESCE(MAX(m.position), 0)"
                " FROM agent_message m WHERE m.session = NEW.session)"
            ),
        ),
    ),
    _guard_update(
        "agent_message",
        _registered("session", "position", "turn", "role", "created_at"),
        (
            "append_only: an answer under way does nothing but end",
            "OLD.state = 'streaming' AND NEW.state = 'streaming'",
        ),
        (
            "append_only: this message has ended, and does not change",
            f"OLD.state <> 'streaming' AND ({_changes_beside(agent_message)})",
        ),
    ),
    # Turns, sessions and agents stay while these refer to them (foreign keys).
    _guard_delete(
        "agent_message", ("kept: the session is closed first", _OPEN_SESSION.format("OLD"))
    ),
)

# The agents' own words, which go when their session does.
_BLANKED: Final = ("model_requested", "reason", "omissions", "figures")
_SWITCH: Final = (
    _guard_insert(
        "agent_switch",
        (
            "switch_asked: a switch is asked for before it is decided",
            "NEW.state <> 'pending'",
        ),
    ),
    _guard_update(
        "agent_switch",
        (
            "append_only: what was asked for does not change",
            changes(
                *("id", "agent", "session", "targets", "for_children"),
                *("asked_at", "expires_at"),
            ),
        ),
        (
            "append_only: a switch is decided once",
            f"OLD.state <> 'pending' AND ({_changes_beside(agent_switch, *_BLANKED)})",
        ),
        (
            "append_only: the words of a switch are blanked or stay",
            rewords(_BLANKED, blanks=["", "[]", "{}"]),
        ),
        (
            "grant_missing: an approved switch has a grant for each of its targets",
            (
                "NEW.state = 'approved' AND OLD.state = 'pending'"
                " AND LENGTH[NEW.targets] <> (SELECT count(*) FROM agent_grant g"
                " WHERE g.request = NEW.id AND g.revoked_at IS NULL)"
            ),
        ),
    ),
    _guard_delete("agent_switch", *always("agent_switch is never deleted")),
)

_GRANT: Final = (
    _guard_insert(
        "agent_grant",
        (
            "grant_given: a grant is given before it is revoked",
            "NEW.revoked_at IS NOT NULL",
        ),
        (
            "switch_missing: nobody waits for this grant",
            (
                "NEW.request IS NOT NULL AND NOT EXISTS (SELECT 1 FROM agent_switch r"
                " WHERE r.id = NEW.request AND r.agent = NEW.agent AND r.session = NEW.session"
                " AND r.state = 'pending')"
            ),
        ),
    ),
    _guard_update(
        "agent_grant",
        ("append_only: a grant is revoked once", "OLD.revoked_at IS NOT NULL"),
        ("append_only: a grant is only ever revoked", "NEW.revoked_at IS NULL"),
        (
            "append_only: what was granted does not change",
            _changes_beside(agent_grant, "revoked_at", SIGNATURE),
        ),
    ),
    _guard_delete("agent_grant", *always("agent_grant is never deleted")),
)

AGENTS: Final = (*_AGENT, *_SESSION, *_TURN, *_MESSAGE, *_SWITCH, *_GRANT)
