"""Triggers of the audit log, interventions, people, keys, samples and agent grants."""

# ruff: noqa: S608 - constants form these statements, never user input

from typing import Final

from harness.agents.records import agent_grant, agent_switch
from harness.app.store.guards.guard import (
    another,
    busy,
    changes,
    changes_beside,
    closed_once,
    person,
    read_guards,
    rewords,
    taken,
)
from harness.frame.records.columns import SIGNATURE
from harness.routing.records.interventions import shadow, switch
from harness.routing.records.runs import sample

_LIFTING: Final = ("lifted_at", "lifted_by")
_ENDING: Final = ("ended_at", "ended_by", "ended_because")
_BEGUN: Final = (
    "id",
    "principal",
    "key",
    "created_at",
    "created_by",
    "created_with",
    "link_hash",
    "link_expires_at",
)
# Retention may blank answers and prompts; scores and numbers stay.
_TEXTS: Final = ("answer", "prompt", "error_text")
# Without the signature, whose change needs no trigger: the next read refuses a wrong one.
_MEASURED: Final = ", ".join(c.name for c in sample.c if c.name not in (*_TEXTS, SIGNATURE))

# Texts of agents, which Swapgate blanks when it deletes their session.
_BLANKED: Final = ("model_requested", "reason", "facts")

# The counters of `meta` and `manifest` never fall. Else an attacker could restore an old signed
# row together with its old manifest.
OPERATIONS: Final = read_guards(f"""
INSERT ON audit_event
    audit_gap: audit events are numbered without gaps
        NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_event)
    audit_chain: this event does not follow the last one
        NEW.previous <> COALESCE((SELECT a.mac FROM audit_event a
        WHERE a.number = NEW.number - 1), '{"0" * 64}')

INSERT ON switch
    {taken("switch", "id")}
    switch_thrown: a switch is thrown before it is lifted
        NEW.lifted_at IS NOT NULL
{
    closed_once(
        switch,
        "switch is lifted",
        "switch is only ever lifted",
        "thrown",
        _LIFTING,
    )
}

INSERT ON shadow
    {taken("shadow", "id")}
    shadow_started: a shadow starts before it ends
        NEW.ended_at IS NOT NULL
    {busy("shadow", "ended_at IS NULL", "route")}
{
    closed_once(
        shadow,
        "shadow ends",
        "shadow is only ever ended",
        "started",
        _ENDING,
    )
}

UPDATE OF {_MEASURED} ON sample AS sample_no_update
    append_only: what was measured is never changed or deleted
UPDATE OF {", ".join(_TEXTS)} ON sample AS sample_blank_only
    append_only: the text of a sample is blanked or stays
        {rewords(_TEXTS, blanks=[""])}
DELETE ON sample
    append_only: what was measured is never changed or deleted

INSERT ON principal
    {taken("principal", same="t.id = NEW.id OR t.folded = NEW.folded")}
UPDATE ON principal
    registered: the identity of a principal does not change
        {changes("id", "kind", "name", "folded", "created_at")}
        OR (OLD.issuer IS NOT NULL AND ({changes("issuer", "subject")}))
DELETE ON principal
    append_only: principal is never deleted

INSERT ON person_link
    {taken("person_link", "id")}
    version_follows: the number of a principal's declaration rises by one
        NEW.number <> 1 + COALESCE((SELECT MAX(m.number) FROM person_link m
        WHERE m.principal = NEW.principal), 0)
    one_person: the operator of this machine is never declared to be another person
        NEW.principal = 'local'
    one_person: this person is declared to be another principal: use that principal
        NEW.person <> NEW.principal AND {person("NEW.person")} <> NEW.person
    one_person: other principals are declared to be this principal
        NEW.person <> NEW.principal AND EXISTS (SELECT 1 FROM person_link l
        WHERE l.person = NEW.principal AND l.principal <> NEW.principal
        AND l.number = (SELECT MAX(m.number) FROM person_link m
        WHERE m.principal = l.principal))

INSERT ON api_key
    key_owner: a management key has a principal, a data key none
        (NEW.role IS NULL) <> (NEW.principal IS NULL)
UPDATE ON api_key
    registered: the owner and the creator of a key do not change
        {changes("id", "principal", "created_by", "created_with")}
        OR (NEW.role IS NULL) <> (OLD.role IS NULL)
    append_only: a revoked key stays revoked
        OLD.revoked_at IS NOT NULL AND ({changes("revoked_at")})

INSERT ON dashboard_session
    {taken("dashboard_session", "id")}
    session_begun: a session begins before it ends
        NEW.ended_at IS NOT NULL
    session_link: a link waits before it is used
        NEW.link_hash IS NOT NULL AND NEW.cookie_hash IS NOT NULL
    session_owner: a session acts with a key of its principal
        (CASE WHEN NEW.key IS NULL THEN NOT EXISTS (SELECT 1 FROM principal p
        WHERE p.id = NEW.principal
        AND (p.kind = 'local' OR p.issuer IS NOT NULL))
        ELSE NOT EXISTS (SELECT 1 FROM api_key k WHERE k.id = NEW.key
        AND k.principal = NEW.principal AND k.role IS NOT NULL) END)
UPDATE ON dashboard_session
    append_only: the principal and the link of a session do not change
        {changes(*_BEGUN)}
    append_only: a link is used once
        OLD.cookie_hash IS NOT NULL AND
        ({changes("cookie_hash", "opened_at", "expires_at")})
    append_only: an ended session stays ended
        OLD.ended_at IS NOT NULL AND ({changes("ended_at", "cookie_hash")})

INSERT ON meta
    {taken("meta", "id")}
UPDATE ON meta AS meta_no_return
    never_back: the counters of the database's history never fall
        NEW.changes < OLD.changes OR NEW.epoch < OLD.epoch
        OR NEW.revision_floor < OLD.revision_floor
        OR {changes("id", "installation")}
DELETE ON meta
    append_only: meta is never deleted
INSERT ON manifest
    {taken("manifest", "id")}
UPDATE ON manifest AS manifest_no_return
    never_back: an older manifest must not replace a newer manifest
        NEW.changes < OLD.changes OR NEW.epoch < OLD.epoch
        OR NEW.revision < OLD.revision
DELETE ON manifest
    append_only: manifest is never deleted

INSERT ON target
    {another("target", "id", "provider", "model", "parameters", "request_patch")}
INSERT ON suite
    {
    another(
        "suite",
        "digest",
        "name",
        "version",
        "data_sha256",
        "scorer",
        "template",
        "items",
    )
}

INSERT ON agent_switch
    {taken("agent_switch", "id")}
    switch_asked: a switch is asked for before it is decided
        NEW.state <> 'pending'
UPDATE ON agent_switch
    append_only: the content of a switch request does not change
        {
    changes(
        "id",
        "agent",
        "session",
        "targets",
        "for_children",
        "asked_at",
        "expires_at",
    )
}
    append_only: a switch is decided once
        OLD.state <> 'pending' AND ({changes_beside(agent_switch, *_BLANKED)})
    append_only: the texts of a switch are blanked or stay
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
        agent_grant,
        "grant is revoked",
        "grant is only ever revoked",
        "granted",
        ["revoked_at"],
    )
}
""")
