"""Triggers of evidence, waivers and verdicts."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger

TRIGGERS: Final = (
    RefusingTrigger(
        name="evidence_guard",
        table="evidence",
        event="INSERT",
        refuses=(
            "Evidence without its verdict or waiver, and baseline evidence for a route that "
            "has versions."
        ),
        example="""
        INSERT INTO evidence (id, route, target, kind, created_at)
        VALUES ('e_2', 'a', 't_third', 'baseline', 1790000000000000)
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM evidence t WHERE t.id = NEW.id);
        SELECT RAISE(
            ABORT,
            'baseline_late: the route has versions; a new target needs a verdict or a waiver'
        )
        WHERE NEW.kind = 'baseline'
            AND EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route);
        SELECT RAISE(ABORT, 'proof_missing: no such verdict or waiver of this route and target')
        WHERE (
                NEW.kind = 'verdict'
                AND NOT EXISTS (
                    SELECT 1 FROM verdict v
                    WHERE v.id = NEW.verdict_id
                        AND v.route = NEW.route
                        AND v.incumbent = NEW.verdict_incumbent
                        AND v.candidate = NEW.target
                        AND v.outcome = 'passed'
                )
            )
            OR (
                NEW.kind = 'waiver'
                AND NOT EXISTS (
                    SELECT 1 FROM waiver w
                    WHERE w.id = NEW.waiver_id
                        AND w.route = NEW.route
                        AND w.target = NEW.target
                )
            );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.evidence t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'baseline'
            AND EXISTS (SELECT 1 FROM public.route_version v WHERE v.route = NEW.route)
        THEN
            RAISE EXCEPTION
            'baseline_late: the route has versions; a new target needs a verdict or a waiver'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF (
                NEW.kind = 'verdict'
                AND NOT EXISTS (
                    SELECT 1 FROM public.verdict v
                    WHERE v.id = NEW.verdict_id
                        AND v.route = NEW.route
                        AND v.incumbent = NEW.verdict_incumbent
                        AND v.candidate = NEW.target
                        AND v.outcome = 'passed'
                )
            )
            OR (
                NEW.kind = 'waiver'
                AND NOT EXISTS (
                    SELECT 1 FROM public.waiver w
                    WHERE w.id = NEW.waiver_id
                        AND w.route = NEW.route
                        AND w.target = NEW.target
                )
            )
        THEN
            RAISE EXCEPTION 'proof_missing: no such verdict or waiver of this route and target'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="evidence_approval_guard",
        table="evidence",
        event="INSERT",
        refuses=(
            "Evidence by a verdict whose proposal lacks the required approval or change "
            "request."
        ),
        example="""
        INSERT INTO evidence (
            id, route, target, kind, verdict_id, verdict_incumbent, verdict_outcome,
            created_at
        ) VALUES (
            'e_2', 'b', 't_third', 'verdict', 'v_2', 't_old', 'passed', 1790000000000000
        )
        """,
        sqlite="""
        SELECT RAISE(
            ABORT,
            'approval_missing: the proposal asks for an approval, and its verdict has no approval'
        )
        WHERE NEW.kind = 'verdict'
            AND EXISTS (
                SELECT 1 FROM verdict v
                JOIN proposal q ON q.id = v.proposal
                WHERE v.id = NEW.verdict_id
                    AND (
                        COALESCE(
                            json_extract(q.policy, '$.promotion'), ''
                        ) <> 'automatic'
                        OR q.widened <> '{}'
                    )
                    AND NOT EXISTS (
                        SELECT 1 FROM approval a
                        WHERE a.verdict = v.id
                            AND a.proposal = q.id
                            AND a.kind = 'canary'
                    )
            );
        SELECT RAISE(
            ABORT,
            'change_missing: the policy asks for a change request, and the proposal names no request'
        )
        WHERE NEW.kind = 'verdict'
            AND EXISTS (
                SELECT 1 FROM verdict v
                JOIN proposal q ON q.id = v.proposal
                WHERE v.id = NEW.verdict_id
                    AND COALESCE(
                        json_extract(q.policy, '$.change_reference'), ''
                    ) = 'required'
                    AND q.change_reference = ''
            );
        """,  # noqa: E501 - a message is one literal
        postgres="""
        IF NEW.kind = 'verdict'
            AND EXISTS (
                SELECT 1 FROM public.verdict v
                JOIN public.proposal q ON q.id = v.proposal
                WHERE v.id = NEW.verdict_id
                    AND (
                        COALESCE(
                            (q.policy)::json ->> 'promotion', ''
                        ) <> 'automatic'
                        OR q.widened <> '{}'
                    )
                    AND NOT EXISTS (
                        SELECT 1 FROM public.approval a
                        WHERE a.verdict = v.id
                            AND a.proposal = q.id
                            AND a.kind = 'canary'
                    )
            )
        THEN
            RAISE EXCEPTION
            'approval_missing: the proposal asks for an approval, and its verdict has no approval'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'verdict'
            AND EXISTS (
                SELECT 1 FROM public.verdict v
                JOIN public.proposal q ON q.id = v.proposal
                WHERE v.id = NEW.verdict_id
                    AND COALESCE(
                        (q.policy)::json ->> 'change_reference', ''
                    ) = 'required'
                    AND q.change_reference = ''
            )
        THEN
            RAISE EXCEPTION
            'change_missing: the policy asks for a change request, and the proposal names no request'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,  # noqa: E501 - a message is one literal
    ),
    RefusingTrigger(
        name="waiver_guard",
        table="waiver",
        event="INSERT",
        refuses="A waiver whose id exists.",
        example="INSERT INTO waiver SELECT * FROM waiver WHERE id = 'w_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM waiver t WHERE t.id = NEW.id);
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.waiver t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="verdict_guard",
        table="verdict",
        event="INSERT",
        refuses="A verdict whose id exists.",
        example="INSERT INTO verdict SELECT * FROM verdict WHERE id = 'v_ok'",
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM verdict t WHERE t.id = NEW.id);
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.verdict t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
)
