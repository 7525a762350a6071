"""Triggers of the audit log, the counters of changes and the manifest."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, never_deleted

TRIGGERS: Final = (
    RefusingTrigger(
        name="audit_event_guard",
        table="audit_event",
        event="INSERT",
        refuses="An audit event that skips a number or does not follow from the last event.",
        example="""
        INSERT INTO audit_event (number, at, actor, action, subject, details, previous, mac)
        VALUES (3, 1790000000000000, 'eve', 'route.create', 'a', '{}', 'ff', 'ff')
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'audit_gap: audit events are numbered without gaps')
        WHERE NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_event);
        SELECT RAISE(ABORT, 'audit_chain: this event does not follow the last one')
        WHERE NEW.previous <> COALESCE(
            (SELECT a.mac FROM audit_event a WHERE a.number = NEW.number - 1),
            '0000000000000000000000000000000000000000000000000000000000000000'
        );
        """,
        postgres="""
        IF NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM public.audit_event)
        THEN
            RAISE EXCEPTION 'audit_gap: audit events are numbered without gaps'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.previous <> COALESCE(
            (SELECT a.mac FROM public.audit_event a WHERE a.number = NEW.number - 1),
            '0000000000000000000000000000000000000000000000000000000000000000'
        )
        THEN
            RAISE EXCEPTION 'audit_chain: this event does not follow the last one'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="meta_guard",
        table="meta",
        event="INSERT",
        refuses="A second row of the installation's counters.",
        example="INSERT INTO meta SELECT * FROM meta",
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM meta t WHERE t.id = NEW.id);
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.meta t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="meta_no_return",
        table="meta",
        event="UPDATE",
        refuses=(
            "Counters of the database's history that fall, which would let an old signed row "
            "return, and another installation."
        ),
        example="UPDATE meta SET epoch = epoch - 1",
        sqlite="""
        SELECT RAISE(ABORT, 'never_back: the counters of the database''s history never fall')
        WHERE NEW.changes < OLD.changes
            OR NEW.epoch < OLD.epoch
            OR NEW.revision_floor < OLD.revision_floor
            OR NEW.id IS NOT OLD.id
            OR NEW.installation IS NOT OLD.installation;
        """,
        postgres="""
        IF NEW.changes < OLD.changes
            OR NEW.epoch < OLD.epoch
            OR NEW.revision_floor < OLD.revision_floor
            OR NEW.id IS DISTINCT FROM OLD.id
            OR NEW.installation IS DISTINCT FROM OLD.installation
        THEN
            RAISE EXCEPTION 'never_back: the counters of the database''s history never fall'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("meta"),
    RefusingTrigger(
        name="manifest_guard",
        table="manifest",
        event="INSERT",
        refuses="A second manifest of the signed rows.",
        example="INSERT INTO manifest SELECT * FROM manifest",
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM manifest t WHERE t.id = NEW.id);
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.manifest t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="manifest_no_return",
        table="manifest",
        event="UPDATE",
        refuses="An older manifest in the place of a newer one.",
        example="UPDATE manifest SET revision = revision - 1",
        sqlite="""
        SELECT RAISE(ABORT, 'never_back: an older manifest must not replace a newer manifest')
        WHERE NEW.changes < OLD.changes
            OR NEW.epoch < OLD.epoch
            OR NEW.revision < OLD.revision;
        """,
        postgres="""
        IF NEW.changes < OLD.changes OR NEW.epoch < OLD.epoch OR NEW.revision < OLD.revision
        THEN
            RAISE EXCEPTION 'never_back: an older manifest must not replace a newer manifest'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("manifest"),
)
