"""Guards of agents: a session has one turn at a time, its messages are numbered without gaps
and change no more once they have ended, a literal model has a grant that is not revoked, a
switch request is decided once and approved with its grants, and what is deleted was closed.
"""

from typing import Final

from harness.store.guards.guard import Guard, Rule, always, changes, taken
from harness.store.schema.agents import agent_grant, agent_switch
from harness.store.schema.columns import SIGNATURE
from harness.store.schema.sessions import agent_idempotency, agent_message

_OPEN_SESSION: Final = (
    "EXISTS (SELECT 1 FROM agent_session s WHERE s.project = {0}.project"
    " AND s.id = {0}.session AND s.state = 'open')"
)
_OPEN_SESSION_OF_AGENT: Final = (
    "EXISTS (SELECT 1 FROM agent_session s WHERE s.project = NEW.project"
    " AND s.id = NEW.session AND s.agent = NEW.agent AND s.state = 'open')"
)
_LIVE_AGENT: Final = (
    "EXISTS (SELECT 1 FROM agent a WHERE a.project = NEW.project AND a.id = NEW.agent"
    " AND a.deleted_at IS NULL)"
)
_ANSWER_UNDER_WAY: Final = (
    "EXISTS (SELECT 1 FROM agent_message m WHERE m.session = NEW.session"
    " AND m.state = 'streaming')"
)


def _closed(alias: str) -> Rule:
    return (
        "session_closed: there is no such open session",
        f"NOT {_OPEN_SESSION.format(alias)}",
    )


def _kept(table: str) -> Guard:
    """Messages and turns are deleted with their session, which is closed first."""
    return Guard(
        f"{table}_no_delete",
        table,
        "DELETE",
        (
            (
                "kept: what belongs to an open session is not deleted",
                _OPEN_SESSION.format("OLD"),
            ),
        ),
    )


def _ends_once(
    table: str, ended: str, sealed: tuple[str, ...], cipher_text: str
) -> tuple[Rule, ...]:
    """Once `ended`, nothing changes but a ciphertext that is encrypted with another key."""
    return (
        (
            f"append_only: this {table} has ended, and does not change",
            (
                f"{ended} AND ({changes(*sealed)} OR (NEW.{cipher_text} IS DISTINCT FROM"
                f" OLD.{cipher_text} AND NOT (OLD.encrypted AND NEW.encrypted)))"
            ),
        ),
    )


_AGENT: Final = (
    Guard(
        "agent_guard",
        "agent",
        "INSERT",
        (
            taken("agent", "id"),
            ("agent_deleted: an agent is not created deleted", "NEW.deleted_at IS NOT NULL"),
        ),
    ),
    Guard(
        "agent_no_rewrite",
        "agent",
        "UPDATE",
        (
            (
                "registered: whose an agent is does not change",
                changes("project", "id", "owner_key", "created_at"),
            ),
            ("append_only: a deleted agent does not change", "OLD.deleted_at IS NOT NULL"),
            (
                "sessions_open: close its sessions before the agent is deleted",
                (
                    "NEW.deleted_at IS NOT NULL AND EXISTS (SELECT 1 FROM agent_session s"
                    " WHERE s.project = NEW.project AND s.agent = NEW.id AND s.state = 'open')"
                ),
            ),
        ),
    ),
    Guard(
        "agent_no_delete",
        "agent",
        "DELETE",
        (("kept: an agent is marked as deleted first", "OLD.deleted_at IS NULL"),),
    ),
)

# Of the session itself, or of the one that spawned it.
_GRANTED: Final[Rule] = (
    "grant_missing: no grant of this agent and session opens this model",
    (
        "NEW.grant_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM agent_grant g"
        " WHERE g.id = NEW.grant_id AND g.project = NEW.project AND g.agent = NEW.agent"
        " AND (g.session IS NULL OR g.session = NEW.id OR g.session = NEW.parent)"
        " AND (NEW.model_kind <> 'literal'"
        " OR (g.target_name = NEW.model_target AND g.kind <> 'auto'))"
        " AND g.revoked_at IS NULL)"
    ),
)
_MODEL: Final = ("model", "model_kind", "model_route", "model_target", "grant_id")
_SESSION: Final = (
    Guard(
        "agent_session_guard",
        "agent_session",
        "INSERT",
        (
            taken("agent_session", "id"),
            ("session_closed: a session is opened before it is closed", "NEW.state <> 'open'"),
            ("agent_deleted: there is no such agent any more", f"NOT {_LIVE_AGENT}"),
            (
                "parent_missing: no open session of this agent stands above it",
                (
                    "NEW.parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM agent_session p"
                    " WHERE p.project = NEW.project AND p.id = NEW.parent"
                    " AND p.agent = NEW.agent AND p.depth = NEW.depth - 1"
                    " AND p.state = 'open')"
                ),
            ),
            _GRANTED,
        ),
    ),
    Guard(
        "agent_session_no_rewrite",
        "agent_session",
        "UPDATE",
        (
            (
                "registered: whose a session is does not change",
                changes("project", "id", "agent", "user_id", "parent", "depth", "created_at"),
            ),
            ("append_only: a closed session does not change", "OLD.state = 'closed'"),
            (
                "session_busy: its turn ends before the session is closed",
                (
                    "NEW.state = 'closed' AND EXISTS (SELECT 1 FROM agent_turn t"
                    " WHERE t.session = NEW.id AND t.state = 'running')"
                ),
            ),
        ),
    ),
    Guard(
        "agent_session_granted",
        "agent_session",
        "UPDATE",
        # A session whose grant was revoked is closed all the same, and stays as it is.
        ((_GRANTED[0], f"({changes(*_MODEL)}) AND {_GRANTED[1]}"),),
        _MODEL,
    ),
    Guard(
        "agent_session_no_delete",
        "agent_session",
        "DELETE",
        (("kept: an open session is not deleted", "OLD.state = 'open'"),),
    ),
)

_TURN: Final = (
    Guard(
        "agent_turn_guard",
        "agent_turn",
        "INSERT",
        (
            taken("agent_turn", "id"),
            ("turn_begun: a turn begins before it ends", "NEW.state <> 'running'"),
            _closed("NEW"),
            (
                "session_busy: the session has a turn under way",
                (
                    "EXISTS (SELECT 1 FROM agent_turn t WHERE t.session = NEW.session"
                    " AND t.state = 'running')"
                ),
            ),
        ),
    ),
    Guard(
        "agent_turn_no_rewrite",
        "agent_turn",
        "UPDATE",
        (
            ("append_only: a turn that has ended does not change", "OLD.state <> 'running'"),
            (
                "registered: whose a turn is does not change",
                changes("project", "id", "session", "owner", "begun_at"),
            ),
            (
                "answer_under_way: its answer ends before the turn",
                f"NEW.state <> 'running' AND {_ANSWER_UNDER_WAY}",
            ),
        ),
    ),
    _kept("agent_turn"),
)

_OF_A_MESSAGE: Final = ("project", "session", "position", "id", "turn", "role", "created_at")
_ENDS: Final = tuple(
    column.name for column in agent_message.c if column.name not in (*_OF_A_MESSAGE, "body")
)
_MESSAGE: Final = (
    Guard(
        "agent_message_guard",
        "agent_message",
        "INSERT",
        (
            taken("agent_message", "session", "position"),
            taken("agent_message", "id"),
            (
                "message_begun: a message is complete, or its answer under way",
                "NEW.state NOT IN ('complete', 'streaming')",
            ),
            _closed("NEW"),
            (
                "turn_missing: a message belongs to the running turn of its session",
                (
                    "NOT EXISTS (SELECT 1 FROM agent_turn t WHERE t.id = NEW.turn"
                    " AND t.session = NEW.session AND t.state = 'running')"
                ),
            ),
            (
                "answer_under_way: the answer before it has not ended",
                _ANSWER_UNDER_WAY,
            ),
            (
                "position_follows: messages are numbered without gaps",
                (
                    "NEW.position <> 1 + (SELECT COALESCE(MAX(m.position), 0)"
                    " FROM agent_message m WHERE m.session = NEW.session)"
                ),
            ),
        ),
    ),
    Guard(
        "agent_message_no_rewrite",
        "agent_message",
        "UPDATE",
        (
            ("registered: whose a message is does not change", changes(*_OF_A_MESSAGE)),
            (
                "append_only: an answer under way does nothing but end",
                "OLD.state = 'streaming' AND NEW.state = 'streaming'",
            ),
            *_ends_once("message", "OLD.state <> 'streaming'", _ENDS, "body"),
        ),
    ),
    _kept("agent_message"),
)

# The agents' own words, which go when their session does.
_BLANKED: Final = ("asked", "reason", "omissions", "figures")
_SWITCH: Final = (
    Guard(
        "agent_switch_guard",
        "agent_switch",
        "INSERT",
        (
            taken("agent_switch", "id"),
            (
                "switch_asked: a switch is asked for before it is decided",
                "NEW.state <> 'pending'",
            ),
            (
                "session_closed: no open session of this agent asks for it",
                f"NOT {_OPEN_SESSION_OF_AGENT}",
            ),
        ),
    ),
    Guard(
        "agent_switch_no_rewrite",
        "agent_switch",
        "UPDATE",
        (
            (
                "append_only: what was asked for does not change",
                changes(
                    *("project", "id", "agent", "session", "targets", "for_children"),
                    *("asked_at", "expires_at"),
                ),
            ),
            (
                "append_only: a switch is decided once",
                "OLD.state <> 'pending' AND ("
                + changes(
                    *(column.name for column in agent_switch.c if column.name not in _BLANKED)
                )
                + ")",
            ),
            (
                "append_only: the words of a switch are blanked or stay",
                " OR ".join(
                    f"(NEW.{name} NOT IN ('', '[]', '{{}}') AND NEW.{name} <> OLD.{name})"
                    for name in _BLANKED
                ),
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
    ),
    Guard(
        "agent_switch_no_delete",
        "agent_switch",
        "DELETE",
        always("agent_switch is never deleted"),
    ),
)

_GRANT: Final = (
    Guard(
        "agent_grant_guard",
        "agent_grant",
        "INSERT",
        (
            taken("agent_grant", "id"),
            (
                "grant_given: a grant is given before it is revoked",
                "NEW.revoked_at IS NOT NULL",
            ),
            ("agent_deleted: there is no such agent any more", f"NOT {_LIVE_AGENT}"),
            (
                "session_closed: no open session of this agent is granted anything",
                f"NEW.session IS NOT NULL AND NOT {_OPEN_SESSION_OF_AGENT}",
            ),
            (
                "switch_missing: nobody waits for this grant",
                (
                    "NEW.request IS NOT NULL AND NOT EXISTS (SELECT 1 FROM agent_switch r"
                    " WHERE r.id = NEW.request AND r.project = NEW.project"
                    " AND r.agent = NEW.agent AND r.session = NEW.session"
                    " AND r.state = 'pending')"
                ),
            ),
        ),
    ),
    Guard(
        "agent_grant_no_rewrite",
        "agent_grant",
        "UPDATE",
        (
            ("append_only: a grant is revoked once", "OLD.revoked_at IS NOT NULL"),
            ("append_only: a grant is only ever revoked", "NEW.revoked_at IS NULL"),
            (
                "append_only: what was granted does not change",
                changes(
                    *(
                        column.name
                        for column in agent_grant.c
                        if column.name not in ("revoked_at", SIGNATURE)
                    )
                ),
            ),
        ),
    ),
    Guard(
        "agent_grant_no_delete", "agent_grant", "DELETE", always("agent_grant is never deleted")
    ),
)

_ANSWERED: Final = tuple(
    column.name for column in agent_idempotency.c if column.name != "answer"
)
_IDEMPOTENCY: Final = (
    Guard(
        "agent_idempotency_no_rewrite",
        "agent_idempotency",
        "UPDATE",
        (
            (
                "registered: what a key was used for does not change",
                changes("project", "scope", "key", "request_hash", "session", "created_at"),
            ),
            *_ends_once("answer", "OLD.status IS NOT NULL", _ANSWERED, "answer"),
        ),
    ),
)

AGENTS: Final = (
    *_AGENT,
    *_SESSION,
    *_TURN,
    *_MESSAGE,
    *_SWITCH,
    *_GRANT,
    *_IDEMPOTENCY,
)
