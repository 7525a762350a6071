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
    person,
    rewords,
    taken,
)
from harness.store.schema.columns import SIGNATURE
from harness.store.schema.evals import sample

_AUDIT_EVENT: Final = Guard(
    "audit_event_guard",
    "audit_event",
    "INSERT",
    (
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
    ),
)

_SWITCH: Final = (
    Guard(
        "switch_guard",
        "switch",
        "INSERT",
        (
            taken("switch", "id"),
            (
                "switch_thrown: a switch is thrown before it is lifted",
                "NEW.lifted_at IS NOT NULL",
            ),
        ),
    ),
    Guard(
        "switch_no_rewrite",
        "switch",
        "UPDATE",
        (
            ("append_only: a switch is lifted once", "OLD.lifted_at IS NOT NULL"),
            ("append_only: a switch is only ever lifted", "NEW.lifted_at IS NULL"),
            (
                "append_only: what was thrown does not change",
                changes(
                    "id",
                    "route",
                    "kind",
                    "name",
                    "reason",
                    "actor",
                    "created_at",
                    "expires_at",
                    "source",
                ),
            ),
        ),
    ),
    Guard("switch_no_delete", "switch", "DELETE", always("switch is never deleted")),
)

_FREEZE: Final = (
    Guard(
        "route_freeze_guard",
        "route_freeze",
        "INSERT",
        (
            taken("route_freeze", "id"),
            ("freeze_set: a freeze is set before it is lifted", "NEW.lifted_at IS NOT NULL"),
        ),
    ),
    Guard(
        "route_freeze_no_rewrite",
        "route_freeze",
        "UPDATE",
        (
            ("append_only: a freeze is lifted once", "OLD.lifted_at IS NOT NULL"),
            ("append_only: a freeze is only ever lifted", "NEW.lifted_at IS NULL"),
            (
                "append_only: what was frozen does not change",
                changes(
                    *("id", "route", "reason", "actor", "created_at", "starts_at", "ends_at")
                ),
            ),
        ),
    ),
    Guard(
        "route_freeze_no_delete", "route_freeze", "DELETE", always("freeze is never deleted")
    ),
)

_SHADOW: Final = (
    Guard(
        "shadow_guard",
        "shadow",
        "INSERT",
        (
            taken("shadow", "id"),
            ("shadow_started: a shadow starts before it ends", "NEW.ended_at IS NOT NULL"),
            busy("shadow", "ended_at IS NULL", "route"),
        ),
    ),
    Guard(
        "shadow_no_rewrite",
        "shadow",
        "UPDATE",
        (
            ("append_only: a shadow ends once", "OLD.ended_at IS NOT NULL"),
            ("append_only: a shadow is only ever ended", "NEW.ended_at IS NULL"),
            (
                "append_only: what was started does not change",
                changes(
                    "id",
                    "route",
                    "incumbent",
                    "candidate",
                    "data_class",
                    "share_bps",
                    "at_once",
                    "requests_per_day",
                    "usd_per_day",
                    "proposal",
                    "reason",
                    "started_by",
                    "started_at",
                    "expires_at",
                    "usd_in_all",
                ),
            ),
        ),
    ),
    Guard("shadow_no_delete", "shadow", "DELETE", always("shadow is never deleted")),
)

_PRINCIPAL: Final = (
    Guard(
        "principal_guard",
        "principal",
        "INSERT",
        (
            (
                "version_taken: such a row is there",
                (
                    "EXISTS (SELECT 1 FROM principal t WHERE t.id = NEW.id"
                    " OR t.folded = NEW.folded)"
                ),
            ),
        ),
    ),
    Guard(
        "principal_no_rewrite",
        "principal",
        "UPDATE",
        (
            (
                "registered: who a principal is does not change",
                (
                    f"{changes('id', 'kind', 'name', 'folded', 'created_at')}"
                    f" OR (OLD.issuer IS NOT NULL AND ({changes('issuer', 'subject')}))"
                ),
            ),
        ),
    ),
    Guard("principal_no_delete", "principal", "DELETE", always("principal is never deleted")),
)
_API_KEY: Final = (
    Guard(
        "api_key_guard",
        "api_key",
        "INSERT",
        (
            (
                "key_owner: a management key has a principal, a data key none",
                "(NEW.role IS NULL) <> (NEW.principal IS NULL)",
            ),
        ),
    ),
    Guard(
        "api_key_no_rewrite",
        "api_key",
        "UPDATE",
        (
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
    ),
)

_PERSON_LINK: Final = Guard(
    "person_link_guard",
    "person_link",
    "INSERT",
    (
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
    Guard(
        "dashboard_session_guard",
        "dashboard_session",
        "INSERT",
        (
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
    ),
    Guard(
        "dashboard_session_no_rewrite",
        "dashboard_session",
        "UPDATE",
        (
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
    ),
)

# A signed row of before fits the manifest of before, and that the counters of before: none goes
# back, so that what control signed once and replaced since stays replaced.
_NEVER_BACK: Final = (
    Guard("meta_guard", "meta", "INSERT", (taken("meta", "id"),)),
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
    Guard("meta_no_delete", "meta", "DELETE", always("meta is never deleted")),
    Guard("manifest_guard", "manifest", "INSERT", (taken("manifest", "id"),)),
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
    Guard("manifest_no_delete", "manifest", "DELETE", always("manifest is never deleted")),
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
    Guard(
        "sample_no_delete",
        "sample",
        "DELETE",
        always("what was measured is never changed or deleted"),
    ),
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
    Guard(
        "target_guard",
        "target",
        "INSERT",
        (another("target", ("id",), ("provider", "model", "parameters", "request_patch")),),
    ),
    Guard(
        "suite_guard",
        "suite",
        "INSERT",
        (
            another(
                "suite",
                ("digest",),
                ("name", "version", "data_sha256", "scorer", "template", "items"),
            ),
        ),
    ),
)
