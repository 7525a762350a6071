"""Triggers of proposals and approvals."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, never_deleted

TRIGGERS: Final = (
    RefusingTrigger(
        name="proposal_guard",
        table="proposal",
        event="INSERT",
        refuses=(
            "A proposal whose id exists, a second open proposal of a route, and a candidate "
            "that joins a selection after its measurement started."
        ),
        example="INSERT INTO proposal SELECT * FROM proposal WHERE id = 'p_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM proposal t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'route_busy: the route has a proposal under way')
        WHERE NEW.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'canary')
            AND EXISTS (
                SELECT 1 FROM proposal t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.phase IN (
                        'proposed', 'evaluating', 'awaiting_approval', 'canary'
                    )
                    AND NOT (
                        t.selection = NEW.selection
                        AND NEW.selection <> ''
                        AND t.place <> NEW.place
                    )
            );
        SELECT RAISE(
            ABORT, 'registered: a selection accepts no candidate after its measurement starts'
        )
        WHERE NEW.selection <> ''
            AND EXISTS (
                SELECT 1 FROM proposal t
                WHERE t.selection = NEW.selection AND t.phase <> 'proposed'
            );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.proposal t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'canary')
            AND EXISTS (
                SELECT 1 FROM public.proposal t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.phase IN (
                        'proposed', 'evaluating', 'awaiting_approval', 'canary'
                    )
                    AND NOT (
                        t.selection = NEW.selection
                        AND NEW.selection <> ''
                        AND t.place <> NEW.place
                    )
            )
        THEN
            RAISE EXCEPTION 'route_busy: the route has a proposal under way'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.selection <> ''
            AND EXISTS (
                SELECT 1 FROM public.proposal t
                WHERE t.selection = NEW.selection AND t.phase <> 'proposed'
            )
        THEN
            RAISE EXCEPTION
                'registered: a selection accepts no candidate after its measurement starts'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="proposal_no_rewrite",
        table="proposal",
        event="UPDATE",
        refuses=(
            "A change of what a proposal registered (route, models, claim, policy, plans, "
            "proposer), and a canary with relaxed rules that only its proposer approved."
        ),
        example="UPDATE proposal SET policy = '{}', version = version + 1 WHERE id = 'p_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'version_follows: a stored proposal''s version rises by one')
        WHERE NEW.version <> OLD.version + 1;
        SELECT RAISE(ABORT, 'registered: what was registered does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.route IS NOT OLD.route
            OR NEW.incumbent IS NOT OLD.incumbent
            OR NEW.candidate IS NOT OLD.candidate
            OR NEW.claim IS NOT OLD.claim
            OR NEW.proposer IS NOT OLD.proposer
            OR NEW.policy IS NOT OLD.policy
            OR NEW.self_approval IS NOT OLD.self_approval
            OR NEW.created_at IS NOT OLD.created_at
            OR NEW.on_better IS NOT OLD.on_better
            OR NEW.widened IS NOT OLD.widened
            OR NEW.proposer_principal IS NOT OLD.proposer_principal
            OR NEW.proposer_key IS NOT OLD.proposer_key
            OR NEW.selection IS NOT OLD.selection
            OR NEW.place IS NOT OLD.place
            OR (OLD.phase <> 'proposed' AND NEW.plans <> OLD.plans);
        SELECT RAISE(ABORT, 'route_busy: the route has a proposal under way')
        WHERE NEW.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'canary')
            AND EXISTS (
                SELECT 1 FROM proposal t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.phase IN (
                        'proposed', 'evaluating', 'awaiting_approval', 'canary'
                    )
                    AND NOT (
                        t.selection = NEW.selection
                        AND NEW.selection <> ''
                        AND t.place <> NEW.place
                    )
            );
        SELECT RAISE(ABORT, 'route_busy: the route has a proposal under way')
        WHERE NEW.phase IN ('awaiting_approval', 'canary')
            AND EXISTS (
                SELECT 1 FROM proposal t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.phase IN ('awaiting_approval', 'canary')
            );
        SELECT RAISE(
            ABORT, 'registered: a change reference is set once, and not after the approval'
        )
        WHERE NEW.change_reference <> OLD.change_reference
            AND (OLD.change_reference <> '' OR OLD.approver IS NOT NULL);
        SELECT RAISE(ABORT, 'registered: a cost is accepted once, and not after the approval')
        WHERE (NEW.accepted_cost IS NOT OLD.accepted_cost)
            AND (OLD.accepted_cost IS NOT NULL OR OLD.approver IS NOT NULL);
        SELECT RAISE(
            ABORT, 'registered: the same model is confirmed once, and not after the approval'
        )
        WHERE (NEW.same_model IS NOT OLD.same_model)
            AND (OLD.same_model IS NOT NULL OR OLD.approver IS NOT NULL);
        SELECT RAISE(ABORT, 'four_eyes: relaxed rules need an approval by another principal')
        WHERE NEW.widened <> '{}'
            AND NEW.phase IN ('canary', 'promoted')
            AND NOT EXISTS (
                SELECT 1 FROM approval a
                WHERE a.proposal = NEW.id
                    AND a.verdict = NEW.verdict
                    AND a.widened = NEW.widened
                    AND a.name <> NEW.proposer
                    AND a.principal <> NEW.proposer_principal
            );
        """,
        postgres="""
        IF NEW.version <> OLD.version + 1
        THEN
            RAISE EXCEPTION 'version_follows: a stored proposal''s version rises by one'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.route IS DISTINCT FROM OLD.route
            OR NEW.incumbent IS DISTINCT FROM OLD.incumbent
            OR NEW.candidate IS DISTINCT FROM OLD.candidate
            OR NEW.claim IS DISTINCT FROM OLD.claim
            OR NEW.proposer IS DISTINCT FROM OLD.proposer
            OR NEW.policy IS DISTINCT FROM OLD.policy
            OR NEW.self_approval IS DISTINCT FROM OLD.self_approval
            OR NEW.created_at IS DISTINCT FROM OLD.created_at
            OR NEW.on_better IS DISTINCT FROM OLD.on_better
            OR NEW.widened IS DISTINCT FROM OLD.widened
            OR NEW.proposer_principal IS DISTINCT FROM OLD.proposer_principal
            OR NEW.proposer_key IS DISTINCT FROM OLD.proposer_key
            OR NEW.selection IS DISTINCT FROM OLD.selection
            OR NEW.place IS DISTINCT FROM OLD.place
            OR (OLD.phase <> 'proposed' AND NEW.plans <> OLD.plans)
        THEN
            RAISE EXCEPTION 'registered: what was registered does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'canary')
            AND EXISTS (
                SELECT 1 FROM public.proposal t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.phase IN (
                        'proposed', 'evaluating', 'awaiting_approval', 'canary'
                    )
                    AND NOT (
                        t.selection = NEW.selection
                        AND NEW.selection <> ''
                        AND t.place <> NEW.place
                    )
            )
        THEN
            RAISE EXCEPTION 'route_busy: the route has a proposal under way'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.phase IN ('awaiting_approval', 'canary')
            AND EXISTS (
                SELECT 1 FROM public.proposal t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.phase IN ('awaiting_approval', 'canary')
            )
        THEN
            RAISE EXCEPTION 'route_busy: the route has a proposal under way'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.change_reference <> OLD.change_reference
            AND (OLD.change_reference <> '' OR OLD.approver IS NOT NULL)
        THEN
            RAISE EXCEPTION
                'registered: a change reference is set once, and not after the approval'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF (NEW.accepted_cost IS DISTINCT FROM OLD.accepted_cost)
            AND (OLD.accepted_cost IS NOT NULL OR OLD.approver IS NOT NULL)
        THEN
            RAISE EXCEPTION 'registered: a cost is accepted once, and not after the approval'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF (NEW.same_model IS DISTINCT FROM OLD.same_model)
            AND (OLD.same_model IS NOT NULL OR OLD.approver IS NOT NULL)
        THEN
            RAISE EXCEPTION
                'registered: the same model is confirmed once, and not after the approval'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.widened <> '{}'
            AND NEW.phase IN ('canary', 'promoted')
            AND NOT EXISTS (
                SELECT 1 FROM public.approval a
                WHERE a.proposal = NEW.id
                    AND a.verdict = NEW.verdict
                    AND a.widened = NEW.widened
                    AND a.name <> NEW.proposer
                    AND a.principal <> NEW.proposer_principal
            )
        THEN
            RAISE EXCEPTION 'four_eyes: relaxed rules need an approval by another principal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("proposal"),
    RefusingTrigger(
        name="approval_guard",
        table="approval",
        event="INSERT",
        refuses=(
            "An approval by the proposer or the person behind the proposer, with another "
            "principal's key, of another proposal's verdict, or without the required change "
            "request."
        ),
        example="""
        INSERT INTO approval (id, proposal, verdict, kind, principal, name, reason, at)
        VALUES ('a_2', 'p_1', 'v_ok', 'canary', 'ada', 'ada', '', 1790000000000000)
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM approval t WHERE t.id = NEW.id);
        SELECT RAISE(
            ABORT, 'approval_of_verdict: the approval names a verdict of another proposal'
        )
        WHERE NEW.verdict IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM verdict v
                WHERE v.id = NEW.verdict AND v.proposal = NEW.proposal
            );
        SELECT RAISE(ABORT, 'four_eyes: the proposer cannot approve the proposal')
        WHERE EXISTS (
            SELECT 1 FROM proposal p
            WHERE p.id = NEW.proposal
                AND p.proposer = NEW.name
                AND NOT p.self_approval
        );
        SELECT RAISE(
            ABORT, 'four_eyes: the person behind the proposer cannot approve the proposal'
        )
        WHERE EXISTS (
            SELECT 1 FROM proposal p
            WHERE p.id = NEW.proposal
                AND COALESCE(
                    (
                        SELECT l.person FROM person_link l
                        WHERE l.principal = p.proposer_principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM person_link m
                                WHERE m.principal = p.proposer_principal
                            )
                    ),
                    p.proposer_principal
                ) = COALESCE(
                    (
                        SELECT l.person FROM person_link l
                        WHERE l.principal = NEW.principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM person_link m
                                WHERE m.principal = NEW.principal
                            )
                    ),
                    NEW.principal
                )
                AND NOT p.self_approval
        );
        SELECT RAISE(ABORT, 'four_eyes: the key belongs to another principal')
        WHERE NEW.key IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM api_key k
                WHERE k.id = NEW.key AND k.principal = NEW.principal
            );
        SELECT RAISE(
            ABORT, 'change_missing: the policy asks for the reference of a change request'
        )
        WHERE NEW.change_reference = ''
            AND EXISTS (
                SELECT 1 FROM proposal p
                WHERE p.id = NEW.proposal
                    AND COALESCE(
                        json_extract(p.policy, '$.change_reference'), ''
                    ) = 'required'
            );
        SELECT RAISE(ABORT, 'change_differs: the proposal names another change request')
        WHERE EXISTS (
            SELECT 1 FROM proposal p
            WHERE p.id = NEW.proposal AND p.change_reference <> NEW.change_reference
        );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.approval t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.verdict IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM public.verdict v
                WHERE v.id = NEW.verdict AND v.proposal = NEW.proposal
            )
        THEN
            RAISE EXCEPTION
                'approval_of_verdict: the approval names a verdict of another proposal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF EXISTS (
            SELECT 1 FROM public.proposal p
            WHERE p.id = NEW.proposal AND p.proposer = NEW.name AND NOT p.self_approval
        )
        THEN
            RAISE EXCEPTION 'four_eyes: the proposer cannot approve the proposal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF EXISTS (
            SELECT 1 FROM public.proposal p
            WHERE p.id = NEW.proposal
                AND COALESCE(
                    (
                        SELECT l.person FROM public.person_link l
                        WHERE l.principal = p.proposer_principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM public.person_link m
                                WHERE m.principal = p.proposer_principal
                            )
                    ),
                    p.proposer_principal
                ) = COALESCE(
                    (
                        SELECT l.person FROM public.person_link l
                        WHERE l.principal = NEW.principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM public.person_link m
                                WHERE m.principal = NEW.principal
                            )
                    ),
                    NEW.principal
                )
                AND NOT p.self_approval
        )
        THEN
            RAISE EXCEPTION
                'four_eyes: the person behind the proposer cannot approve the proposal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.key IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM public.api_key k
                WHERE k.id = NEW.key AND k.principal = NEW.principal
            )
        THEN
            RAISE EXCEPTION 'four_eyes: the key belongs to another principal'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.change_reference = ''
            AND EXISTS (
                SELECT 1 FROM public.proposal p
                WHERE p.id = NEW.proposal
                    AND COALESCE(
                        (p.policy)::json ->> 'change_reference', ''
                    ) = 'required'
            )
        THEN
            RAISE EXCEPTION
                'change_missing: the policy asks for the reference of a change request'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF EXISTS (
            SELECT 1 FROM public.proposal p
            WHERE p.id = NEW.proposal AND p.change_reference <> NEW.change_reference
        )
        THEN
            RAISE EXCEPTION 'change_differs: the proposal names another change request'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
)
