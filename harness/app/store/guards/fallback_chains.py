"""Triggers of fallback chains."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger

TRIGGERS: Final = (
    RefusingTrigger(
        name="route_version_links",
        table="route_version",
        event="INSERT",
        refuses=(
            "A routing version that changes the fallback chain without a change of settings, "
            "or that takes a target whose waiver has expired."
        ),
        example="""
        INSERT INTO route_version (
            route, version, revision, kind, incumbent, incumbent_evidence, prev_version,
            prev_incumbent, weight_bps, settings, at, actor, reason
        ) VALUES (
            'c', 2, 4, 'restore', 't_old', 'e_c', 1, 't_old', 0, '{}', 1790000000000000,
            'eve', ''
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'chain_stays: only a change of settings changes the chain')
        WHERE NEW.kind NOT IN ('baseline', 'settings')
            AND (
                (
                    SELECT count(*)
                    FROM route_fallback n
                    WHERE n.route = NEW.route AND n.version = NEW.version
                ) <> (
                    SELECT count(*)
                    FROM route_fallback o
                    WHERE o.route = NEW.route AND o.version = NEW.version - 1
                )
                OR EXISTS (
                    SELECT 1 FROM route_fallback n
                    WHERE n.route = NEW.route
                        AND n.version = NEW.version
                        AND NOT EXISTS (
                            SELECT 1 FROM route_fallback o
                            WHERE o.route = NEW.route
                                AND o.version = NEW.version - 1
                                AND o.position = n.position
                                AND o.target = n.target
                                AND o.evidence = n.evidence
                        )
                )
            );
        SELECT RAISE(ABORT, 'waiver_expired: a waiver of the chain has expired')
        WHERE NEW.kind IN ('baseline', 'settings')
            AND EXISTS (
                SELECT 1 FROM route_fallback n
                JOIN evidence e ON e.id = n.evidence
                JOIN waiver w ON w.id = e.waiver_id
                WHERE n.route = NEW.route
                    AND n.version = NEW.version
                    AND w.expires_at <= NEW.at
            );
        """,
        postgres="""
        IF NEW.kind NOT IN ('baseline', 'settings')
            AND (
                (
                    SELECT count(*)
                    FROM public.route_fallback n
                    WHERE n.route = NEW.route AND n.version = NEW.version
                ) <> (
                    SELECT count(*)
                    FROM public.route_fallback o
                    WHERE o.route = NEW.route AND o.version = NEW.version - 1
                )
                OR EXISTS (
                    SELECT 1 FROM public.route_fallback n
                    WHERE n.route = NEW.route
                        AND n.version = NEW.version
                        AND NOT EXISTS (
                            SELECT 1 FROM public.route_fallback o
                            WHERE o.route = NEW.route
                                AND o.version = NEW.version - 1
                                AND o.position = n.position
                                AND o.target = n.target
                                AND o.evidence = n.evidence
                        )
                )
            )
        THEN
            RAISE EXCEPTION 'chain_stays: only a change of settings changes the chain'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind IN ('baseline', 'settings')
            AND EXISTS (
                SELECT 1 FROM public.route_fallback n
                JOIN public.evidence e ON e.id = n.evidence
                JOIN public.waiver w ON w.id = e.waiver_id
                WHERE n.route = NEW.route
                    AND n.version = NEW.version
                    AND w.expires_at <= NEW.at
            )
        THEN
            RAISE EXCEPTION 'waiver_expired: a waiver of the chain has expired'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="route_fallback_guard",
        table="route_fallback",
        event="INSERT",
        refuses=(
            "A fallback target of a stored version, without evidence for this route, or with "
            "evidence that only the first version may use."
        ),
        example="""
        INSERT INTO route_fallback (route, version, position, target, evidence)
        VALUES ('a', 1, 0, 't_new', 'e_new')
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'sealed: the version is stored, and its chain cannot change')
        WHERE EXISTS (
            SELECT 1 FROM route_version v
            WHERE v.route = NEW.route AND v.version = NEW.version
        );
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (
            SELECT 1 FROM route_fallback t
            WHERE t.route = NEW.route
                AND t.version = NEW.version
                AND t.position = NEW.position
        );
        SELECT RAISE(ABORT, 'evidence_missing: no such evidence of this route and target')
        WHERE NOT EXISTS (
            SELECT 1 FROM evidence e
            WHERE e.id = NEW.evidence
                AND e.route = NEW.route
                AND e.target = NEW.target
        );
        SELECT RAISE(
            ABORT, 'baseline_evidence: only targets of the first version have baseline evidence'
        )
        WHERE NEW.version > 1
            AND EXISTS (
                SELECT 1 FROM evidence e
                WHERE e.id = NEW.evidence AND e.kind = 'baseline'
            )
            AND NOT EXISTS (
                SELECT 1 FROM route_version v
                WHERE v.route = NEW.route
                    AND v.version = 1
                    AND v.incumbent_evidence = NEW.evidence
            )
            AND NOT EXISTS (
                SELECT 1 FROM route_fallback f
                WHERE f.route = NEW.route
                    AND f.version = 1
                    AND f.evidence = NEW.evidence
            );
        """,
        postgres="""
        IF EXISTS (
            SELECT 1 FROM public.route_version v
            WHERE v.route = NEW.route AND v.version = NEW.version
        )
        THEN
            RAISE EXCEPTION 'sealed: the version is stored, and its chain cannot change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF EXISTS (
            SELECT 1 FROM public.route_fallback t
            WHERE t.route = NEW.route
                AND t.version = NEW.version
                AND t.position = NEW.position
        )
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NOT EXISTS (
            SELECT 1 FROM public.evidence e
            WHERE e.id = NEW.evidence AND e.route = NEW.route AND e.target = NEW.target
        )
        THEN
            RAISE EXCEPTION 'evidence_missing: no such evidence of this route and target'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.version > 1
            AND EXISTS (
                SELECT 1 FROM public.evidence e
                WHERE e.id = NEW.evidence AND e.kind = 'baseline'
            )
            AND NOT EXISTS (
                SELECT 1 FROM public.route_version v
                WHERE v.route = NEW.route
                    AND v.version = 1
                    AND v.incumbent_evidence = NEW.evidence
            )
            AND NOT EXISTS (
                SELECT 1 FROM public.route_fallback f
                WHERE f.route = NEW.route AND f.version = 1 AND f.evidence = NEW.evidence
            )
        THEN
            RAISE EXCEPTION
                'baseline_evidence: only targets of the first version have baseline evidence'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
)
