"""Triggers of the proof that a canary or a promotion needs."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger

TRIGGERS: Final = (
    RefusingTrigger(
        name="route_version_bake_guard",
        table="route_version",
        event="INSERT",
        refuses=(
            "A canary during the bake time of the last promotion, and a holdback that no "
            "promotion made."
        ),
        example="""
        INSERT INTO route_version (
            route, version, revision, kind, incumbent, incumbent_evidence, prev_version,
            prev_incumbent, weight_bps, settings, at, actor, reason, holdback,
            holdback_plan
        ) VALUES (
            'a', 2, 4, 'settings', 't_old', 'e_old', 1, 't_old', 0, '{}',
            1790000000000000, 'eve', '', 't_third', '{}'
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'holdback_whole: a holdback has a share and a rollout')
        WHERE (NEW.holdback IS NULL) <> (NEW.holdback_plan IS NULL);
        SELECT RAISE(
            ABORT, 'holdback_is_the_last: a promotion holds back the previous incumbent'
        )
        WHERE NEW.kind = 'promotion'
            AND NEW.holdback IS NOT NULL
            AND NEW.holdback <> NEW.prev_incumbent;
        SELECT RAISE(ABORT, 'holdback_stays: only a promotion holds a target back')
        WHERE NEW.kind <> 'promotion'
            AND NEW.holdback IS NOT NULL
            AND NOT (
                NEW.kind = 'settings'
                AND EXISTS (
                    SELECT 1 FROM route_version p
                    WHERE p.route = NEW.route
                        AND p.version = NEW.version - 1
                        AND p.holdback = NEW.holdback
                        AND p.holdback_plan = NEW.holdback_plan
                )
            );
        SELECT RAISE(ABORT, 'bake_first: the bake time of the last promotion has not ended')
        WHERE NEW.kind = 'canary'
            AND EXISTS (
                SELECT 1 FROM route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.holdback IS NOT NULL
            );
        """,
        postgres="""
        IF (NEW.holdback IS NULL) <> (NEW.holdback_plan IS NULL)
        THEN
            RAISE EXCEPTION 'holdback_whole: a holdback has a share and a rollout'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'promotion'
            AND NEW.holdback IS NOT NULL
            AND NEW.holdback <> NEW.prev_incumbent
        THEN
            RAISE EXCEPTION
                'holdback_is_the_last: a promotion holds back the previous incumbent'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind <> 'promotion'
            AND NEW.holdback IS NOT NULL
            AND NOT (
                NEW.kind = 'settings'
                AND EXISTS (
                    SELECT 1 FROM public.route_version p
                    WHERE p.route = NEW.route
                        AND p.version = NEW.version - 1
                        AND p.holdback = NEW.holdback
                        AND p.holdback_plan = NEW.holdback_plan
                )
            )
        THEN
            RAISE EXCEPTION 'holdback_stays: only a promotion holds a target back'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'canary'
            AND EXISTS (
                SELECT 1 FROM public.route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.holdback IS NOT NULL
            )
        THEN
            RAISE EXCEPTION 'bake_first: the bake time of the last promotion has not ended'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="route_version_proof_guard",
        table="route_version",
        event="INSERT",
        refuses=(
            "A canary, a higher share or a promotion without its proof: a passed, current, "
            "unused verdict, the required approval, and the policy's steps in order; also on "
            "a frozen route."
        ),
        example="""
        INSERT INTO route_version (
            route, version, revision, kind, incumbent, incumbent_evidence, canary,
            canary_evidence, weight_bps, salt, rollout, unit_rule, settings,
            prev_version, prev_incumbent, verdict_id, verdict_candidate,
            verdict_outcome, at, actor, reason
        ) VALUES (
            'a', 2, 4, 'canary', 't_old', 'e_old', 't_new', 'e_new', 10000, 's', 'ro_1',
            '{}', '{}', 1, 't_old', 'v_ok', 't_new', 'passed', 1790000000000000, 'eve',
            ''
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'evidence_missing: no such evidence of this route and incumbent')
        WHERE NOT EXISTS (
            SELECT 1 FROM evidence e
            WHERE e.id = NEW.incumbent_evidence
                AND e.route = NEW.route
                AND e.target = NEW.incumbent
        );
        SELECT RAISE(
            ABORT, 'verdict_missing: no passed verdict of this route, incumbent and candidate'
        )
        WHERE NEW.kind IN ('canary', 'promotion')
            AND NOT EXISTS (
                SELECT 1 FROM verdict v
                WHERE v.id = NEW.verdict_id
                    AND v.route = NEW.route
                    AND v.incumbent = NEW.prev_incumbent
                    AND v.candidate = NEW.verdict_candidate
                    AND v.outcome = 'passed'
            );
        SELECT RAISE(
            ABORT, 'verdict_expired: the verdict has expired, or its time is in the future'
        )
        WHERE NEW.kind IN ('canary', 'promotion')
            AND EXISTS (
                SELECT 1 FROM verdict v
                WHERE v.id = NEW.verdict_id
                    AND (NEW.at < v.decided_at OR NEW.at >= v.expires_at)
            );
        SELECT RAISE(ABORT, 'time_follows: the version is older than the previous version')
        WHERE NEW.kind IN ('canary', 'promotion')
            AND EXISTS (
                SELECT 1 FROM route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.at > NEW.at
            );
        SELECT RAISE(
            ABORT, 'verdict_used: a verdict can prove only one canary and one promotion'
        )
        WHERE NEW.kind IN ('canary', 'promotion')
            AND (
                EXISTS (
                    SELECT 1 FROM route_version o
                    WHERE o.route = NEW.route
                        AND o.kind = NEW.kind
                        AND o.verdict_id = NEW.verdict_id
                )
                OR EXISTS (
                    SELECT 1 FROM rollout r
                    WHERE r.verdict = NEW.verdict_id AND r.state = 'rolled_back'
                )
            );
        SELECT RAISE(
            ABORT,
            'approval_missing: the proposal''s policy asks for an approval of this verdict'
        )
        WHERE NEW.kind IN ('canary', 'promotion')
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
            'frozen: the route is frozen; no canary opens or advances, and no target is promoted'
        )
        WHERE NEW.kind IN ('canary', 'weight', 'promotion')
            AND EXISTS (
                SELECT 1 FROM switch f
                WHERE (f.route IS NULL OR f.route = NEW.route)
                    AND f.kind = 'freeze'
                    AND f.lifted_at IS NULL
                    AND COALESCE(f.starts_at, f.created_at) <= NEW.at
                    AND NEW.at < f.expires_at
            );
        SELECT RAISE(
            ABORT, 'first_step: a canary opens with its rollout, at its policy''s first step'
        )
        WHERE NEW.kind = 'canary'
            AND NOT EXISTS (
                SELECT 1 FROM rollout r
                JOIN proposal q ON q.id = r.proposal
                WHERE r.id = NEW.rollout
                    AND r.verdict = NEW.verdict_id
                    AND r.route = NEW.route
                    AND r.incumbent = NEW.incumbent
                    AND r.candidate = NEW.canary
                    AND r.salt = NEW.salt
                    AND r.state = 'waiting'
                    AND r.step = 0
                    AND NEW.weight_bps = json_extract(
                        q.policy, '$.canary.steps[' || (0) || '].weight_bps'
                    )
            );
        SELECT RAISE(ABORT, 'next_step: a canary''s weight rises to its policy''s next step')
        WHERE NEW.kind = 'weight'
            AND NOT EXISTS (
                SELECT 1 FROM rollout r
                JOIN proposal q ON q.id = r.proposal
                WHERE r.id = NEW.rollout
                    AND r.state IN ('waiting', 'measuring', 'paused')
                    AND NEW.weight_bps = json_extract(
                        q.policy,
                        '$.canary.steps[' || (r.step + 1) || '].weight_bps'
                    )
            );
        SELECT RAISE(
            ABORT,
            'last_step: a promotion follows its canary''s last step or a person''s approval'
        )
        WHERE NEW.kind = 'promotion'
            AND NOT EXISTS (
                SELECT 1 FROM rollout r
                JOIN proposal q ON q.id = r.proposal
                JOIN route_version p ON p.rollout = r.id
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.canary = NEW.incumbent
                    AND r.verdict = NEW.verdict_id
                    AND r.state IN ('waiting', 'measuring', 'paused')
                    AND (
                        (
                            r.state = 'measuring'
                            AND r.step = json_array_length(
                                q.policy, '$.canary.steps'
                            ) - 1
                            AND p.weight_bps = json_extract(
                                q.policy,
                                '$.canary.steps[' || (r.step) || '].weight_bps'
                            )
                        )
                        OR EXISTS (
                            SELECT 1 FROM approval a
                            WHERE a.verdict = r.verdict
                                AND a.proposal = q.id
                                AND a.kind = 'promotion'
                        )
                    )
            );
        """,  # noqa: E501 - a message is one literal
        postgres="""
        IF NOT EXISTS (
            SELECT 1 FROM public.evidence e
            WHERE e.id = NEW.incumbent_evidence
                AND e.route = NEW.route
                AND e.target = NEW.incumbent
        )
        THEN
            RAISE EXCEPTION 'evidence_missing: no such evidence of this route and incumbent'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('canary', 'promotion')
            AND NOT EXISTS (
                SELECT 1 FROM public.verdict v
                WHERE v.id = NEW.verdict_id
                    AND v.route = NEW.route
                    AND v.incumbent = NEW.prev_incumbent
                    AND v.candidate = NEW.verdict_candidate
                    AND v.outcome = 'passed'
            )
        THEN
            RAISE EXCEPTION
                'verdict_missing: no passed verdict of this route, incumbent and candidate'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('canary', 'promotion')
            AND EXISTS (
                SELECT 1 FROM public.verdict v
                WHERE v.id = NEW.verdict_id
                    AND (NEW.at < v.decided_at OR NEW.at >= v.expires_at)
            )
        THEN
            RAISE EXCEPTION
                'verdict_expired: the verdict has expired, or its time is in the future'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('canary', 'promotion')
            AND EXISTS (
                SELECT 1 FROM public.route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.at > NEW.at
            )
        THEN
            RAISE EXCEPTION 'time_follows: the version is older than the previous version'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('canary', 'promotion')
            AND (
                EXISTS (
                    SELECT 1 FROM public.route_version o
                    WHERE o.route = NEW.route
                        AND o.kind = NEW.kind
                        AND o.verdict_id = NEW.verdict_id
                )
                OR EXISTS (
                    SELECT 1 FROM public.rollout r
                    WHERE r.verdict = NEW.verdict_id AND r.state = 'rolled_back'
                )
            )
        THEN
            RAISE EXCEPTION
                'verdict_used: a verdict can prove only one canary and one promotion'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('canary', 'promotion')
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
                'approval_missing: the proposal''s policy asks for an approval of this verdict'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('canary', 'weight', 'promotion')
            AND EXISTS (
                SELECT 1 FROM public.switch f
                WHERE (f.route IS NULL OR f.route = NEW.route)
                    AND f.kind = 'freeze'
                    AND f.lifted_at IS NULL
                    AND COALESCE(f.starts_at, f.created_at) <= NEW.at
                    AND NEW.at < f.expires_at
            )
        THEN
            RAISE EXCEPTION
            'frozen: the route is frozen; no canary opens or advances, and no target is promoted'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'canary'
            AND NOT EXISTS (
                SELECT 1 FROM public.rollout r
                JOIN public.proposal q ON q.id = r.proposal
                WHERE r.id = NEW.rollout
                    AND r.verdict = NEW.verdict_id
                    AND r.route = NEW.route
                    AND r.incumbent = NEW.incumbent
                    AND r.candidate = NEW.canary
                    AND r.salt = NEW.salt
                    AND r.state = 'waiting'
                    AND r.step = 0
                    AND NEW.weight_bps = (
                        (q.policy)::json -> 'canary' -> 'steps'
                            -> (0)::int ->> 'weight_bps'
                    )::bigint
            )
        THEN
            RAISE EXCEPTION
                'first_step: a canary opens with its rollout, at its policy''s first step'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'weight'
            AND NOT EXISTS (
                SELECT 1 FROM public.rollout r
                JOIN public.proposal q ON q.id = r.proposal
                WHERE r.id = NEW.rollout
                    AND r.state IN ('waiting', 'measuring', 'paused')
                    AND NEW.weight_bps = (
                        (q.policy)::json -> 'canary' -> 'steps'
                            -> (r.step + 1)::int ->> 'weight_bps'
                    )::bigint
            )
        THEN
            RAISE EXCEPTION 'next_step: a canary''s weight rises to its policy''s next step'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'promotion'
            AND NOT EXISTS (
                SELECT 1 FROM public.rollout r
                JOIN public.proposal q ON q.id = r.proposal
                JOIN public.route_version p ON p.rollout = r.id
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.canary = NEW.incumbent
                    AND r.verdict = NEW.verdict_id
                    AND r.state IN ('waiting', 'measuring', 'paused')
                    AND (
                        (
                            r.state = 'measuring'
                            AND r.step = json_array_length(
                                (q.policy)::json -> 'canary' -> 'steps'
                            ) - 1
                            AND p.weight_bps = (
                                (q.policy)::json -> 'canary' -> 'steps'
                                    -> (r.step)::int ->> 'weight_bps'
                            )::bigint
                        )
                        OR EXISTS (
                            SELECT 1 FROM public.approval a
                            WHERE a.verdict = r.verdict
                                AND a.proposal = q.id
                                AND a.kind = 'promotion'
                        )
                    )
            )
        THEN
            RAISE EXCEPTION
                'last_step: a promotion follows its canary''s last step or a person''s approval'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,  # noqa: E501 - a message is one literal
    ),
)
