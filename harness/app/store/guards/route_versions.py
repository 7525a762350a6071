"""Triggers of route versions: their order, their kinds and the evidence of the incumbent."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger

TRIGGERS: Final = (
    RefusingTrigger(
        name="route_version_guard",
        table="route_version",
        event="INSERT",
        refuses=(
            "A routing version that does not follow from the version before it and from its "
            "evidence: a taken or skipped number, a second canary, a share that falls, an "
            "incumbent that never served."
        ),
        example="""
        INSERT INTO route_version (
            route, version, revision, kind, incumbent, incumbent_evidence, prev_version,
            prev_incumbent, weight_bps, settings, at, actor, reason
        ) VALUES (
            'a', 2, 4, 'restore', 't_new', 'e_new', 1, 't_old', 0, '{}',
            1790000000000000, 'eve', ''
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (
            SELECT 1 FROM route_version t
            WHERE t.route = NEW.route AND t.version = NEW.version
        );
        SELECT RAISE(ABORT, 'revision_follows: revisions rise by one, from above a floor')
        WHERE NEW.revision <> 1 + (
            SELECT CASE
                WHEN m.revision_floor > n.newest
                THEN m.revision_floor
                ELSE n.newest
            END
            FROM meta m
            CROSS JOIN (
                SELECT COALESCE(MAX(v.revision), 0) AS newest
                FROM route_version v
            ) n
        );
        SELECT RAISE(ABORT, 'baseline_evidence: a first version needs baseline evidence')
        WHERE NEW.version = 1
            AND NOT EXISTS (
                SELECT 1 FROM evidence e
                WHERE e.id = NEW.incumbent_evidence AND e.kind = 'baseline'
            );
        SELECT RAISE(ABORT, 'incumbent_evidence: an incumbent that stays keeps its evidence')
        WHERE NEW.kind IN ('canary', 'weight', 'abort', 'settings')
            AND NOT EXISTS (
                SELECT 1 FROM route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.incumbent = NEW.incumbent
                    AND p.incumbent_evidence = NEW.incumbent_evidence
            );
        SELECT RAISE(ABORT, 'proof_is_evidence: a promoted target''s evidence is its verdict')
        WHERE NEW.kind = 'promotion'
            AND NOT EXISTS (
                SELECT 1 FROM evidence e
                WHERE e.id = NEW.incumbent_evidence AND e.verdict_id = NEW.verdict_id
            );
        SELECT RAISE(ABORT, 'proof_is_evidence: a canary''s evidence is its verdict')
        WHERE NEW.kind = 'canary'
            AND NOT EXISTS (
                SELECT 1 FROM evidence e
                WHERE e.id = NEW.canary_evidence AND e.verdict_id = NEW.verdict_id
            );
        SELECT RAISE(ABORT, 'one_canary: the route has a canary already')
        WHERE NEW.kind = 'canary'
            AND NOT EXISTS (
                SELECT 1 FROM route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.canary IS NULL
            );
        SELECT RAISE(ABORT, 'weight_rises: only the weight of the same canary rises')
        WHERE NEW.kind = 'weight'
            AND NOT EXISTS (
                SELECT 1 FROM route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '')
                    AND COALESCE(p.canary_evidence, '') = COALESCE(
                        NEW.canary_evidence, ''
                    )
                    AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '')
                    AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '')
                    AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '')
                    AND p.weight_bps < NEW.weight_bps
            );
        SELECT RAISE(ABORT, 'canary_stays: a change of settings does not change the canary')
        WHERE NEW.kind = 'settings'
            AND NOT EXISTS (
                SELECT 1 FROM route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '')
                    AND COALESCE(p.canary_evidence, '') = COALESCE(
                        NEW.canary_evidence, ''
                    )
                    AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '')
                    AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '')
                    AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '')
                    AND p.weight_bps = NEW.weight_bps
            );
        SELECT RAISE(ABORT, 'nothing_to_abort: there is no canary')
        WHERE NEW.kind = 'abort'
            AND NOT EXISTS (
                SELECT 1 FROM route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.canary IS NOT NULL
            );
        SELECT RAISE(
            ABORT, 'never_incumbent: only a former incumbent of this route is restored'
        )
        WHERE NEW.kind = 'restore'
            AND NEW.break_glass IS NULL
            AND NOT EXISTS (
                SELECT 1 FROM route_version f
                WHERE f.route = NEW.route
                    AND f.version < NEW.version
                    AND f.incumbent = NEW.incumbent
                    AND f.incumbent_evidence = NEW.incumbent_evidence
            );
        """,
        postgres="""
        IF EXISTS (
            SELECT 1 FROM public.route_version t
            WHERE t.route = NEW.route AND t.version = NEW.version
        )
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.revision <> 1 + (
            SELECT CASE
                WHEN m.revision_floor > n.newest
                THEN m.revision_floor
                ELSE n.newest
            END
            FROM public.meta m
            CROSS JOIN (
                SELECT COALESCE(MAX(v.revision), 0) AS newest
                FROM public.route_version v
            ) n
        )
        THEN
            RAISE EXCEPTION 'revision_follows: revisions rise by one, from above a floor'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.version = 1
            AND NOT EXISTS (
                SELECT 1 FROM public.evidence e
                WHERE e.id = NEW.incumbent_evidence AND e.kind = 'baseline'
            )
        THEN
            RAISE EXCEPTION 'baseline_evidence: a first version needs baseline evidence'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('canary', 'weight', 'abort', 'settings')
            AND NOT EXISTS (
                SELECT 1 FROM public.route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.incumbent = NEW.incumbent
                    AND p.incumbent_evidence = NEW.incumbent_evidence
            )
        THEN
            RAISE EXCEPTION 'incumbent_evidence: an incumbent that stays keeps its evidence'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'promotion'
            AND NOT EXISTS (
                SELECT 1 FROM public.evidence e
                WHERE e.id = NEW.incumbent_evidence AND e.verdict_id = NEW.verdict_id
            )
        THEN
            RAISE EXCEPTION 'proof_is_evidence: a promoted target''s evidence is its verdict'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'canary'
            AND NOT EXISTS (
                SELECT 1 FROM public.evidence e
                WHERE e.id = NEW.canary_evidence AND e.verdict_id = NEW.verdict_id
            )
        THEN
            RAISE EXCEPTION 'proof_is_evidence: a canary''s evidence is its verdict'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'canary'
            AND NOT EXISTS (
                SELECT 1 FROM public.route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.canary IS NULL
            )
        THEN
            RAISE EXCEPTION 'one_canary: the route has a canary already'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'weight'
            AND NOT EXISTS (
                SELECT 1 FROM public.route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '')
                    AND COALESCE(p.canary_evidence, '') = COALESCE(
                        NEW.canary_evidence, ''
                    )
                    AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '')
                    AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '')
                    AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '')
                    AND p.weight_bps < NEW.weight_bps
            )
        THEN
            RAISE EXCEPTION 'weight_rises: only the weight of the same canary rises'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'settings'
            AND NOT EXISTS (
                SELECT 1 FROM public.route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '')
                    AND COALESCE(p.canary_evidence, '') = COALESCE(
                        NEW.canary_evidence, ''
                    )
                    AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '')
                    AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '')
                    AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '')
                    AND p.weight_bps = NEW.weight_bps
            )
        THEN
            RAISE EXCEPTION 'canary_stays: a change of settings does not change the canary'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'abort'
            AND NOT EXISTS (
                SELECT 1 FROM public.route_version p
                WHERE p.route = NEW.route
                    AND p.version = NEW.version - 1
                    AND p.canary IS NOT NULL
            )
        THEN
            RAISE EXCEPTION 'nothing_to_abort: there is no canary'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'restore'
            AND NEW.break_glass IS NULL
            AND NOT EXISTS (
                SELECT 1 FROM public.route_version f
                WHERE f.route = NEW.route
                    AND f.version < NEW.version
                    AND f.incumbent = NEW.incumbent
                    AND f.incumbent_evidence = NEW.incumbent_evidence
            )
        THEN
            RAISE EXCEPTION 'never_incumbent: only a former incumbent of this route is restored'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
)
