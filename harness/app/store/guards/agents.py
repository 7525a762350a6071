"""Triggers of switch requests and grants of agents."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, never_deleted

TRIGGERS: Final = (
    RefusingTrigger(
        name="agent_switch_guard",
        table="agent_switch",
        event="INSERT",
        refuses="A switch request of an agent that is decided from the start.",
        example="""
        INSERT INTO agent_switch (
            id, agent, session, model_requested, targets, reason, asked_at, expires_at,
            for_children, facts, state, decided_at, decided_by, decision_reason
        ) VALUES (
            'as_2', 'ag_1', 'se_1', 'sim/t_new', '["t_new"]', '', 1790000000000000,
            1790000000000009, FALSE, '{}', 'approved', 1790000000000001, 'eve', ''
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM agent_switch t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'switch_asked: a switch is asked for before it is decided')
        WHERE NEW.state <> 'pending';
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.agent_switch t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.state <> 'pending'
        THEN
            RAISE EXCEPTION 'switch_asked: a switch is asked for before it is decided'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="agent_switch_no_rewrite",
        table="agent_switch",
        event="UPDATE",
        refuses=(
            "A change of a switch request other than one decision, with a grant for each "
            "target if it is approved; texts may only be blanked."
        ),
        example="""
        UPDATE agent_switch SET
            state = 'approved', decided_at = asked_at, decided_by = 'eve'
        WHERE id = 'as_1'
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: the content of a switch request does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.agent IS NOT OLD.agent
            OR NEW.session IS NOT OLD.session
            OR NEW.targets IS NOT OLD.targets
            OR NEW.for_children IS NOT OLD.for_children
            OR NEW.asked_at IS NOT OLD.asked_at
            OR NEW.expires_at IS NOT OLD.expires_at;
        SELECT RAISE(ABORT, 'append_only: a switch is decided once')
        WHERE OLD.state <> 'pending'
            AND (
                NEW.id IS NOT OLD.id
                OR NEW.agent IS NOT OLD.agent
                OR NEW.session IS NOT OLD.session
                OR NEW.targets IS NOT OLD.targets
                OR NEW.asked_at IS NOT OLD.asked_at
                OR NEW.expires_at IS NOT OLD.expires_at
                OR NEW.for_children IS NOT OLD.for_children
                OR NEW.state IS NOT OLD.state
                OR NEW.decided_at IS NOT OLD.decided_at
                OR NEW.decided_by IS NOT OLD.decided_by
                OR NEW.decided_with IS NOT OLD.decided_with
                OR NEW.decision_reason IS NOT OLD.decision_reason
            );
        SELECT RAISE(ABORT, 'append_only: the texts of a switch are blanked or stay')
        WHERE (
                NEW.model_requested <> OLD.model_requested
                AND NEW.model_requested NOT IN ('', '[]', '{}')
            )
            OR (NEW.reason <> OLD.reason AND NEW.reason NOT IN ('', '[]', '{}'))
            OR (NEW.facts <> OLD.facts AND NEW.facts NOT IN ('', '[]', '{}'));
        SELECT RAISE(
            ABORT, 'grant_missing: an approved switch has a grant for each of its targets'
        )
        WHERE NEW.state = 'approved'
            AND OLD.state = 'pending'
            AND json_array_length(NEW.targets) <> (
                SELECT count(*)
                FROM agent_grant g
                WHERE g.request = NEW.id AND g.revoked_at IS NULL
            );
        """,
        postgres="""
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.agent IS DISTINCT FROM OLD.agent
            OR NEW.session IS DISTINCT FROM OLD.session
            OR NEW.targets IS DISTINCT FROM OLD.targets
            OR NEW.for_children IS DISTINCT FROM OLD.for_children
            OR NEW.asked_at IS DISTINCT FROM OLD.asked_at
            OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
        THEN
            RAISE EXCEPTION 'append_only: the content of a switch request does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF OLD.state <> 'pending'
            AND (
                NEW.id IS DISTINCT FROM OLD.id
                OR NEW.agent IS DISTINCT FROM OLD.agent
                OR NEW.session IS DISTINCT FROM OLD.session
                OR NEW.targets IS DISTINCT FROM OLD.targets
                OR NEW.asked_at IS DISTINCT FROM OLD.asked_at
                OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
                OR NEW.for_children IS DISTINCT FROM OLD.for_children
                OR NEW.state IS DISTINCT FROM OLD.state
                OR NEW.decided_at IS DISTINCT FROM OLD.decided_at
                OR NEW.decided_by IS DISTINCT FROM OLD.decided_by
                OR NEW.decided_with IS DISTINCT FROM OLD.decided_with
                OR NEW.decision_reason IS DISTINCT FROM OLD.decision_reason
            )
        THEN
            RAISE EXCEPTION 'append_only: a switch is decided once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF (
                NEW.model_requested <> OLD.model_requested
                AND NEW.model_requested NOT IN ('', '[]', '{}')
            )
            OR (NEW.reason <> OLD.reason AND NEW.reason NOT IN ('', '[]', '{}'))
            OR (NEW.facts <> OLD.facts AND NEW.facts NOT IN ('', '[]', '{}'))
        THEN
            RAISE EXCEPTION 'append_only: the texts of a switch are blanked or stay'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.state = 'approved'
            AND OLD.state = 'pending'
            AND json_array_length((NEW.targets)::json) <> (
                SELECT count(*)
                FROM public.agent_grant g
                WHERE g.request = NEW.id AND g.revoked_at IS NULL
            )
        THEN
            RAISE EXCEPTION
                'grant_missing: an approved switch has a grant for each of its targets'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("agent_switch"),
    RefusingTrigger(
        name="agent_grant_guard",
        table="agent_grant",
        event="INSERT",
        refuses=(
            "A grant whose id exists, that is revoked from the start, or that no waiting "
            "switch request of its session asks for."
        ),
        example="""
        INSERT INTO agent_grant (
            id, agent, target, target_name, kind, granted_by, reason, created_at,
            expires_at, session, data_class, request
        ) VALUES (
            'gr_2', 'ag_1', 't_new', 'sim/t_new', 'switch', 'eve', 'r',
            1790000000000000, 1790000000000009, 'se_1', '', 'as_2'
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM agent_grant t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'grant_given: a grant is given before it is revoked')
        WHERE NEW.revoked_at IS NOT NULL;
        SELECT RAISE(
            ABORT,
            'switch_missing: no pending switch request of this session asks for this grant'
        )
        WHERE NEW.request IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM agent_switch r
                WHERE r.id = NEW.request
                    AND r.agent = NEW.agent
                    AND r.session = NEW.session
                    AND r.state = 'pending'
            );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.agent_grant t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.revoked_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'grant_given: a grant is given before it is revoked'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.request IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM public.agent_switch r
                WHERE r.id = NEW.request
                    AND r.agent = NEW.agent
                    AND r.session = NEW.session
                    AND r.state = 'pending'
            )
        THEN
            RAISE EXCEPTION
                'switch_missing: no pending switch request of this session asks for this grant'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="agent_grant_no_rewrite",
        table="agent_grant",
        event="UPDATE",
        refuses="A change of a grant other than that it is revoked once.",
        example="UPDATE agent_grant SET target = 't_third' WHERE id = 'gr_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: a grant is revoked once')
        WHERE OLD.revoked_at IS NOT NULL;
        SELECT RAISE(ABORT, 'append_only: a grant is only ever revoked')
        WHERE NEW.revoked_at IS NULL;
        SELECT RAISE(ABORT, 'append_only: what was granted does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.agent IS NOT OLD.agent
            OR NEW.target IS NOT OLD.target
            OR NEW.target_name IS NOT OLD.target_name
            OR NEW.kind IS NOT OLD.kind
            OR NEW.granted_by IS NOT OLD.granted_by
            OR NEW.granted_with IS NOT OLD.granted_with
            OR NEW.reason IS NOT OLD.reason
            OR NEW.created_at IS NOT OLD.created_at
            OR NEW.expires_at IS NOT OLD.expires_at
            OR NEW.session IS NOT OLD.session
            OR NEW.data_class IS NOT OLD.data_class
            OR NEW.request IS NOT OLD.request;
        """,
        postgres="""
        IF OLD.revoked_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'append_only: a grant is revoked once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.revoked_at IS NULL
        THEN
            RAISE EXCEPTION 'append_only: a grant is only ever revoked'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.agent IS DISTINCT FROM OLD.agent
            OR NEW.target IS DISTINCT FROM OLD.target
            OR NEW.target_name IS DISTINCT FROM OLD.target_name
            OR NEW.kind IS DISTINCT FROM OLD.kind
            OR NEW.granted_by IS DISTINCT FROM OLD.granted_by
            OR NEW.granted_with IS DISTINCT FROM OLD.granted_with
            OR NEW.reason IS DISTINCT FROM OLD.reason
            OR NEW.created_at IS DISTINCT FROM OLD.created_at
            OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
            OR NEW.session IS DISTINCT FROM OLD.session
            OR NEW.data_class IS DISTINCT FROM OLD.data_class
            OR NEW.request IS DISTINCT FROM OLD.request
        THEN
            RAISE EXCEPTION 'append_only: what was granted does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("agent_grant"),
)
