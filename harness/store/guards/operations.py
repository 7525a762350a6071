"""Guards refuse rows that change what was measured, logged, frozen or thrown (samples, targets,
suites, audit, switches, freezes, shadows), who people and keys are, or that put the database
back in time.
"""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from typing import Final

from harness.store.guards.guard import (
    Guard,
    always,
    another,
    busy,
    changes,
    closed_once,
    on_delete,
    on_insert,
    on_update,
    person,
    rewords,
    taken,
)
from harness.store.schema.columns import SIGNATURE
from harness.store.schema.evals import sample
from harness.store.schema.interventions import freeze, switch
from harness.store.schema.shadow import shadow

LIFTING: Final = ("lifted_at", "lifted_by")

_AUDIT_EVENT: Final = on_insert(
    "audit_event",
    (
        "audit_gap: audit events are numbered without gaps",
        "NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_event)",
    ),
    (
        "audit_chain: this event does not follow the last one",
        (
            "NEW.previous <> COALESCE((SELECT a.mac FROM audit_event a"
            f" WHERE a.number = NEW.number - 1), '{'0' * 64}')"
        ),
    ),
)

_SWITCH: Final = (
    on_insert(
        "switch",
        taken("switch", "id"),
        ("switch_thrown: a switch is thrown before it is lifted", "NEW.lifted_at IS NOT NULL"),
    ),
    *closed_once(switch, "switch is lifted", "switch is only ever lifted", "thrown", LIFTING),
)

_FREEZE: Final = (
    on_insert(
        "route_freeze",
        taken("route_freeze", "id"),
        ("freeze_set: a freeze is set before it is lifted", "NEW.lifted_at IS NOT NULL"),
    ),
    *closed_once(
        freeze, "freeze is lifted", "freeze is only ever lifted", "frozen", LIFTING, "freeze"
    ),
)

_SHADOW: Final = (
    on_insert(
        "shadow",
        taken("shadow", "id"),
        ("shadow_started: a shadow starts before it ends", "NEW.ended_at IS NOT NULL"),
        busy("shadow", "ended_at IS NULL", "route"),
    ),
    *closed_once(
        *(shadow, "shadow ends", "shadow is only ever ended", "started"),
        ("ended_at", "ended_by", "ended_because"),
    ),
)

_PRINCIPAL: Final = (
    on_insert(
        "principal",
        (
            "version_taken: such a row is there",
            ("EXISTS (SELECT 1 FROM principal t WHERE t.id = NEW.id OR t.folded = NEW.folded)"),
        ),
    ),
    on_update(
        "principal",
        (
            "registered: who a principal is does not change",
            (
                f"{changes('id', 'kind', 'name', 'folded', 'created_at')}"
                f" OR (OLD.issuer IS NOT NULL AND ({changes('issuer', 'subject')}))"
            ),
        ),
    ),
    on_delete("principal", *always("principal is never deleted")),
)
_API_KEY: Final = (
    on_insert(
        "api_key",
        (
            "key_owner: a management key has a principal, a data key none",
            "(NEW.role IS NULL) <> (NEW.principal IS NULL)",
        ),
    ),
    on_update(
        "api_key",
        (
            "registered: whose a key is, and who created it, does not change",
            (
                f"{changes('id', 'principal', 'created_by', 'created_with')}"
                " OR (NEW.role IS NULL) <> (OLD.role IS NULL)"
            ),
        ),
        (
            "append_only: a revoked key stays revoked",
            f"OLD.revoked_at IS NOT NULL AND ({changes('revoked_at')})",
        ),
    ),
)

_PERSON_LINK: Final = on_insert(
    "person_link",
    taken("person_link", "id"),
    (
        "version_follows: the declarations of a principal are counted",
        (
            "NEW.number <> 1 + COALESCE((SELECT MAX(m.number) FROM person_link m"
            " WHERE m.principal = NEW.principal), 0)"
        ),
    ),
    (
        "one_person: the operator of this machine is declared to be nobody",
        "NEW.principal = 'local'",
    ),
    (
        "one_person: who was declared to be another is nobody's person",
        (f"NEW.person <> NEW.principal AND {person('NEW.person')} <> NEW.person"),
    ),
    (
        "one_person: others were declared to be this principal",
        (
            "NEW.person <> NEW.principal AND EXISTS (SELECT 1 FROM person_link l"
            " WHERE l.person = NEW.principal AND l.principal <> NEW.principal"
            " AND l.number = (SELECT MAX(m.number) FROM person_link m"
            " WHERE m.principal = l.principal))"
        ),
    ),
)

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
_DASHBOARD_SESSION: Final = (
    on_insert(
        "dashboard_session",
        taken("dashboard_session", "id"),
        (
            "session_begun: a session begins before it ends",
            "NEW.ended_at IS NOT NULL",
        ),
        (
            "session_link: a link waits before it is used",
            "NEW.link_hash IS NOT NULL AND NEW.cookie_hash IS NOT NULL",
        ),
        (
            "session_owner: a session acts with a key of its principal",
            (
                "(CASE WHEN NEW.key IS NULL THEN NOT EXISTS (SELECT 1 FROM principal p"
                " WHERE p.id = NEW.principal"
                " AND (p.kind = 'local' OR p.issuer IS NOT NULL))"
                " ELSE NOT EXISTS (SELECT 1 FROM api_key k WHERE k.id = NEW.key"
                " AND k.principal = NEW.principal AND k.role IS NOT NULL) END)"
            ),
        ),
    ),
    on_update(
        "dashboard_session",
        ("append_only: as whom a session acts does not change", changes(*_BEGUN)),
        (
            "append_only: a link is used once",
            (
                "OLD.cookie_hash IS NOT NULL AND"
                f" ({changes('cookie_hash', 'opened_at', 'expires_at')})"
            ),
        ),
        (
            "append_only: a session that ended stays so",
            f"OLD.ended_at IS NOT NULL AND ({changes('ended_at', 'cookie_hash')})",
        ),
    ),
)

# A signed row of before fits the manifest of before, and that the counters of before: none goes
# back, so that what control signed once and replaced since stays replaced.
_NEVER_BACK: Final = (
    on_insert("meta", taken("meta", "id")),
    Guard(
        "meta_no_return",
        "meta",
        "UPDATE",
        (
            (
                "never_back: the database's place in its history only rises",
                (
                    "NEW.changes < OLD.changes OR NEW.epoch < OLD.epoch"
                    " OR NEW.revision_floor < OLD.revision_floor"
                    f" OR {changes('id', 'installation')}"
                ),
            ),
        ),
    ),
    on_delete("meta", *always("meta is never deleted")),
    on_insert("manifest", taken("manifest", "id")),
    Guard(
        "manifest_no_return",
        "manifest",
        "UPDATE",
        (
            (
                "never_back: the manifest of an earlier moment does not come back",
                (
                    "NEW.changes < OLD.changes OR NEW.epoch < OLD.epoch"
                    " OR NEW.revision < OLD.revision"
                ),
            ),
        ),
    ),
    on_delete("manifest", *always("manifest is never deleted")),
)

# Answers and prompts may be blanked for privacy; what was measured stays.
_TEXTS: Final = ("answer", "prompt", "error_text")
# A signature that is changed is one that holds no more.
_MEASURED: Final = tuple(
    column.name for column in sample.c if column.name not in (*_TEXTS, SIGNATURE)
)
_SAMPLE: Final = (
    Guard(
        "sample_no_update",
        "sample",
        "UPDATE",
        always("what was measured is never changed or deleted"),
        _MEASURED,
    ),
    Guard(
        "sample_blank_only",
        "sample",
        "UPDATE",
        (
            (
                "append_only: the text of a sample is blanked or stays",
                rewords(_TEXTS, blanks=[""]),
            ),
        ),
        _TEXTS,
    ),
    on_delete("sample", *always("what was measured is never changed or deleted")),
)


OPERATIONS: Final = (
    _AUDIT_EVENT,
    *_SWITCH,
    *_FREEZE,
    *_SHADOW,
    *_SAMPLE,
    *_PRINCIPAL,
    _PERSON_LINK,
    *_API_KEY,
    *_DASHBOARD_SESSION,
    *_NEVER_BACK,
    on_insert(
        "target",
        another("target", ("id",), ("provider", "model", "parameters", "request_patch")),
    ),
    on_insert(
        "suite",
        another(
            "suite",
            ("digest",),
            ("name", "version", "data_sha256", "scorer", "template", "items"),
        ),
    ),
)
