"""Triggers of principals, declared persons, keys and dashboard sessions."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, never_deleted

TRIGGERS: Final = (
    RefusingTrigger(
        name="principal_guard",
        table="principal",
        event="INSERT",
        refuses="A principal whose id or name (in any case) exists.",
        example="""
        INSERT INTO principal (id, kind, name, folded, created_at)
        VALUES ('pr_2', 'person', 'Ben', 'ben', 1790000000000000)
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (
            SELECT 1 FROM principal t WHERE t.id = NEW.id OR t.folded = NEW.folded
        );
        """,
        postgres="""
        IF EXISTS (
            SELECT 1 FROM public.principal t WHERE t.id = NEW.id OR t.folded = NEW.folded
        )
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="principal_no_rewrite",
        table="principal",
        event="UPDATE",
        refuses=(
            "Another identity of a principal: its kind, name or account at an identity "
            "provider."
        ),
        example="UPDATE principal SET name = 'ada', folded = 'ada' WHERE id = 'pr_ben'",
        sqlite="""
        SELECT RAISE(ABORT, 'registered: the identity of a principal does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.kind IS NOT OLD.kind
            OR NEW.name IS NOT OLD.name
            OR NEW.folded IS NOT OLD.folded
            OR NEW.created_at IS NOT OLD.created_at
            OR (
                OLD.issuer IS NOT NULL
                AND (NEW.issuer IS NOT OLD.issuer OR NEW.subject IS NOT OLD.subject)
            );
        """,
        postgres="""
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.kind IS DISTINCT FROM OLD.kind
            OR NEW.name IS DISTINCT FROM OLD.name
            OR NEW.folded IS DISTINCT FROM OLD.folded
            OR NEW.created_at IS DISTINCT FROM OLD.created_at
            OR (
                OLD.issuer IS NOT NULL
                AND (
                    NEW.issuer IS DISTINCT FROM OLD.issuer
                    OR NEW.subject IS DISTINCT FROM OLD.subject
                )
            )
        THEN
            RAISE EXCEPTION 'registered: the identity of a principal does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("principal"),
    RefusingTrigger(
        name="person_link_guard",
        table="person_link",
        event="INSERT",
        refuses=(
            "A declaration that skips a number, concerns the operator of this machine, or "
            "makes a chain of persons."
        ),
        example="""
        INSERT INTO person_link (
            id, principal, number, person, reason, created_at, created_by
        ) VALUES (
            'pl_2', 'local', 1, 'pr_ben', 'the same person', 1790000000000000, 'eve'
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM person_link t WHERE t.id = NEW.id);
        SELECT RAISE(
            ABORT, 'version_follows: the number of a principal''s declaration rises by one'
        )
        WHERE NEW.number <> 1 + COALESCE(
            (
                SELECT MAX(m.number)
                FROM person_link m
                WHERE m.principal = NEW.principal
            ),
            0
        );
        SELECT RAISE(
            ABORT,
            'one_person: the operator of this machine is never declared to be another person'
        )
        WHERE NEW.principal = 'local';
        SELECT RAISE(
            ABORT,
            'one_person: this person is declared to be another principal: use that principal'
        )
        WHERE NEW.person <> NEW.principal
            AND COALESCE(
                (
                    SELECT l.person FROM person_link l
                    WHERE l.principal = NEW.person
                        AND l.number = (
                            SELECT MAX(m.number)
                            FROM person_link m
                            WHERE m.principal = NEW.person
                        )
                ),
                NEW.person
            ) <> NEW.person;
        SELECT RAISE(ABORT, 'one_person: other principals are declared to be this principal')
        WHERE NEW.person <> NEW.principal
            AND EXISTS (
                SELECT 1 FROM person_link l
                WHERE l.person = NEW.principal
                    AND l.principal <> NEW.principal
                    AND l.number = (
                        SELECT MAX(m.number)
                        FROM person_link m
                        WHERE m.principal = l.principal
                    )
            );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.person_link t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.number <> 1 + COALESCE(
            (
                SELECT MAX(m.number)
                FROM public.person_link m
                WHERE m.principal = NEW.principal
            ),
            0
        )
        THEN
            RAISE EXCEPTION
                'version_follows: the number of a principal''s declaration rises by one'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.principal = 'local'
        THEN
            RAISE EXCEPTION
            'one_person: the operator of this machine is never declared to be another person'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.person <> NEW.principal
            AND COALESCE(
                (
                    SELECT l.person FROM public.person_link l
                    WHERE l.principal = NEW.person
                        AND l.number = (
                            SELECT MAX(m.number)
                            FROM public.person_link m
                            WHERE m.principal = NEW.person
                        )
                ),
                NEW.person
            ) <> NEW.person
        THEN
            RAISE EXCEPTION
            'one_person: this person is declared to be another principal: use that principal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.person <> NEW.principal
            AND EXISTS (
                SELECT 1 FROM public.person_link l
                WHERE l.person = NEW.principal
                    AND l.principal <> NEW.principal
                    AND l.number = (
                        SELECT MAX(m.number)
                        FROM public.person_link m
                        WHERE m.principal = l.principal
                    )
            )
        THEN
            RAISE EXCEPTION 'one_person: other principals are declared to be this principal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="api_key_guard",
        table="api_key",
        event="INSERT",
        refuses="A management key without a principal, and a client key with a principal.",
        example="""
        INSERT INTO api_key (id, name, hash, hint, role, routes, created_at)
        VALUES ('k_2', 'ci', 'ff', 'sg', 4, '[]', 1790000000000000)
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'key_owner: a management key has a principal, a client key none')
        WHERE (NEW.role IS NULL) <> (NEW.principal IS NULL);
        """,
        postgres="""
        IF (NEW.role IS NULL) <> (NEW.principal IS NULL)
        THEN
            RAISE EXCEPTION 'key_owner: a management key has a principal, a client key none'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="api_key_no_rewrite",
        table="api_key",
        event="UPDATE",
        refuses="Another owner or creator of a key, and the return of a revoked key.",
        example="UPDATE api_key SET principal = 'pr_eve' WHERE id = 'k_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'registered: the owner and the creator of a key do not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.principal IS NOT OLD.principal
            OR NEW.created_by IS NOT OLD.created_by
            OR NEW.created_with IS NOT OLD.created_with
            OR (NEW.role IS NULL) <> (OLD.role IS NULL);
        SELECT RAISE(ABORT, 'append_only: a revoked key stays revoked')
        WHERE OLD.revoked_at IS NOT NULL AND (NEW.revoked_at IS NOT OLD.revoked_at);
        """,
        postgres="""
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.principal IS DISTINCT FROM OLD.principal
            OR NEW.created_by IS DISTINCT FROM OLD.created_by
            OR NEW.created_with IS DISTINCT FROM OLD.created_with
            OR (NEW.role IS NULL) <> (OLD.role IS NULL)
        THEN
            RAISE EXCEPTION 'registered: the owner and the creator of a key do not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF OLD.revoked_at IS NOT NULL AND (NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
        THEN
            RAISE EXCEPTION 'append_only: a revoked key stays revoked'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="dashboard_session_guard",
        table="dashboard_session",
        event="INSERT",
        refuses=(
            "A dashboard session that is ended from the start, has a used link, or acts with "
            "another principal's key."
        ),
        example="""
        INSERT INTO dashboard_session (
            id, principal, key, created_at, created_by, cookie_hash, opened_at,
            expires_at
        ) VALUES (
            'ds_2', 'pr_eve', 'k_1', 1790000000000000, 'eve', 'ff', 1790000000000000,
            1790000000000001
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM dashboard_session t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'session_begun: a session begins before it ends')
        WHERE NEW.ended_at IS NOT NULL;
        SELECT RAISE(ABORT, 'session_link: a link waits before it is used')
        WHERE NEW.link_hash IS NOT NULL AND NEW.cookie_hash IS NOT NULL;
        SELECT RAISE(ABORT, 'session_owner: a session acts with a key of its principal')
        WHERE (
            CASE
                WHEN NEW.key IS NULL
                THEN NOT EXISTS (
                    SELECT 1 FROM principal p
                    WHERE p.id = NEW.principal
                        AND (p.kind = 'local' OR p.issuer IS NOT NULL)
                )
                ELSE NOT EXISTS (
                    SELECT 1 FROM api_key k
                    WHERE k.id = NEW.key
                        AND k.principal = NEW.principal
                        AND k.role IS NOT NULL
                )
            END
        );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.dashboard_session t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.ended_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'session_begun: a session begins before it ends'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.link_hash IS NOT NULL AND NEW.cookie_hash IS NOT NULL
        THEN
            RAISE EXCEPTION 'session_link: a link waits before it is used'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF (
            CASE
                WHEN NEW.key IS NULL
                THEN NOT EXISTS (
                    SELECT 1 FROM public.principal p
                    WHERE p.id = NEW.principal
                        AND (p.kind = 'local' OR p.issuer IS NOT NULL)
                )
                ELSE NOT EXISTS (
                    SELECT 1 FROM public.api_key k
                    WHERE k.id = NEW.key
                        AND k.principal = NEW.principal
                        AND k.role IS NOT NULL
                )
            END
        )
        THEN
            RAISE EXCEPTION 'session_owner: a session acts with a key of its principal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="dashboard_session_no_rewrite",
        table="dashboard_session",
        event="UPDATE",
        refuses=(
            "Another principal or link of a dashboard session, a second use of its link, and "
            "a return after its end."
        ),
        example="UPDATE dashboard_session SET principal = 'pr_eve' WHERE id = 'ds_1'",
        sqlite="""
        SELECT RAISE(
            ABORT, 'append_only: the principal and the link of a session do not change'
        )
        WHERE NEW.id IS NOT OLD.id
            OR NEW.principal IS NOT OLD.principal
            OR NEW.key IS NOT OLD.key
            OR NEW.created_at IS NOT OLD.created_at
            OR NEW.created_by IS NOT OLD.created_by
            OR NEW.created_with IS NOT OLD.created_with
            OR NEW.link_hash IS NOT OLD.link_hash
            OR NEW.link_expires_at IS NOT OLD.link_expires_at;
        SELECT RAISE(ABORT, 'append_only: a link is used once')
        WHERE OLD.cookie_hash IS NOT NULL
            AND (
                NEW.cookie_hash IS NOT OLD.cookie_hash
                OR NEW.opened_at IS NOT OLD.opened_at
                OR NEW.expires_at IS NOT OLD.expires_at
            );
        SELECT RAISE(ABORT, 'append_only: an ended session stays ended')
        WHERE OLD.ended_at IS NOT NULL
            AND (
                NEW.ended_at IS NOT OLD.ended_at
                OR NEW.cookie_hash IS NOT OLD.cookie_hash
            );
        """,
        postgres="""
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.principal IS DISTINCT FROM OLD.principal
            OR NEW.key IS DISTINCT FROM OLD.key
            OR NEW.created_at IS DISTINCT FROM OLD.created_at
            OR NEW.created_by IS DISTINCT FROM OLD.created_by
            OR NEW.created_with IS DISTINCT FROM OLD.created_with
            OR NEW.link_hash IS DISTINCT FROM OLD.link_hash
            OR NEW.link_expires_at IS DISTINCT FROM OLD.link_expires_at
        THEN
            RAISE EXCEPTION 'append_only: the principal and the link of a session do not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF OLD.cookie_hash IS NOT NULL
            AND (
                NEW.cookie_hash IS DISTINCT FROM OLD.cookie_hash
                OR NEW.opened_at IS DISTINCT FROM OLD.opened_at
                OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
            )
        THEN
            RAISE EXCEPTION 'append_only: a link is used once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF OLD.ended_at IS NOT NULL
            AND (
                NEW.ended_at IS DISTINCT FROM OLD.ended_at
                OR NEW.cookie_hash IS DISTINCT FROM OLD.cookie_hash
            )
        THEN
            RAISE EXCEPTION 'append_only: an ended session stays ended'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
)
