"""Triggers of rollouts."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, never_deleted

TRIGGERS: Final = (
    RefusingTrigger(
        name="rollout_guard",
        table="rollout",
        event="INSERT",
        refuses=(
            "A second live rollout of a route, and a rollout by a verdict that another "
            "rollout used."
        ),
        example="INSERT INTO rollout SELECT * FROM rollout WHERE id = 'ro_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM rollout t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'route_busy: the route has a rollout under way')
        WHERE NEW.state IN ('waiting', 'measuring', 'paused')
            AND EXISTS (
                SELECT 1 FROM rollout t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.state IN ('waiting', 'measuring', 'paused')
            );
        SELECT RAISE(ABORT, 'verdict_used: a verdict can prove only one rollout')
        WHERE EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict);
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.rollout t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.state IN ('waiting', 'measuring', 'paused')
            AND EXISTS (
                SELECT 1 FROM public.rollout t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.state IN ('waiting', 'measuring', 'paused')
            )
        THEN
            RAISE EXCEPTION 'route_busy: the route has a rollout under way'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF EXISTS (SELECT 1 FROM public.rollout r WHERE r.verdict = NEW.verdict)
        THEN
            RAISE EXCEPTION 'verdict_used: a verdict can prove only one rollout'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="rollout_no_rewrite",
        table="rollout",
        event="UPDATE",
        refuses=(
            "A change of what a rollout registered, a return from its end, and a step that "
            "the route does not serve."
        ),
        example="UPDATE rollout SET step = 1, version = version + 1 WHERE id = 'ro_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'version_follows: a stored rollout''s version rises by one')
        WHERE NEW.version <> OLD.version + 1;
        SELECT RAISE(ABORT, 'registered: what was registered does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.proposal IS NOT OLD.proposal
            OR NEW.route IS NOT OLD.route
            OR NEW.incumbent IS NOT OLD.incumbent
            OR NEW.candidate IS NOT OLD.candidate
            OR NEW.verdict IS NOT OLD.verdict
            OR NEW.policy IS NOT OLD.policy
            OR NEW.salt IS NOT OLD.salt
            OR NEW.started_at IS NOT OLD.started_at;
        SELECT RAISE(ABORT, 'ended: a rollout does not come back')
        WHERE (
                OLD.state = 'waiting'
                AND NEW.state NOT IN (
                    'waiting', 'measuring', 'paused', 'promoted', 'rolled_back',
                    'waiting'
                )
            )
            OR (
                OLD.state = 'measuring'
                AND NEW.state NOT IN (
                    'measuring', 'paused', 'promoted', 'rolled_back', 'waiting'
                )
            )
            OR (
                OLD.state = 'paused'
                AND NEW.state NOT IN ('paused', 'promoted', 'rolled_back', 'waiting')
            )
            OR (
                OLD.state = 'promoted'
                AND NEW.state NOT IN ('promoted', 'promoted', 'rolled_back')
            )
            OR (OLD.state = 'rolled_back' AND NEW.state NOT IN ('rolled_back'));
        SELECT RAISE(
            ABORT,
            'next_step: a rollout advances one step, after the route serves the new weight'
        )
        WHERE NEW.step <> OLD.step
            AND (
                NEW.step <> OLD.step + 1
                OR NOT EXISTS (
                    SELECT 1 FROM route_version p
                    JOIN proposal q ON q.id = NEW.proposal
                    WHERE p.route = NEW.route
                        AND p.rollout = NEW.id
                        AND p.version = (
                            SELECT MAX(l.version)
                            FROM route_version l
                            WHERE l.route = NEW.route
                        )
                        AND p.weight_bps = json_extract(
                            q.policy,
                            '$.canary.steps[' || (NEW.step) || '].weight_bps'
                        )
                )
            );
        SELECT RAISE(ABORT, 'route_busy: the route has a rollout under way')
        WHERE NEW.state IN ('waiting', 'measuring', 'paused')
            AND EXISTS (
                SELECT 1 FROM rollout t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.state IN ('waiting', 'measuring', 'paused')
            );
        """,
        postgres="""
        IF NEW.version <> OLD.version + 1
        THEN
            RAISE EXCEPTION 'version_follows: a stored rollout''s version rises by one'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.proposal IS DISTINCT FROM OLD.proposal
            OR NEW.route IS DISTINCT FROM OLD.route
            OR NEW.incumbent IS DISTINCT FROM OLD.incumbent
            OR NEW.candidate IS DISTINCT FROM OLD.candidate
            OR NEW.verdict IS DISTINCT FROM OLD.verdict
            OR NEW.policy IS DISTINCT FROM OLD.policy
            OR NEW.salt IS DISTINCT FROM OLD.salt
            OR NEW.started_at IS DISTINCT FROM OLD.started_at
        THEN
            RAISE EXCEPTION 'registered: what was registered does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF (
                OLD.state = 'waiting'
                AND NEW.state NOT IN (
                    'waiting', 'measuring', 'paused', 'promoted', 'rolled_back',
                    'waiting'
                )
            )
            OR (
                OLD.state = 'measuring'
                AND NEW.state NOT IN (
                    'measuring', 'paused', 'promoted', 'rolled_back', 'waiting'
                )
            )
            OR (
                OLD.state = 'paused'
                AND NEW.state NOT IN ('paused', 'promoted', 'rolled_back', 'waiting')
            )
            OR (
                OLD.state = 'promoted'
                AND NEW.state NOT IN ('promoted', 'promoted', 'rolled_back')
            )
            OR (OLD.state = 'rolled_back' AND NEW.state NOT IN ('rolled_back'))
        THEN
            RAISE EXCEPTION 'ended: a rollout does not come back'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.step <> OLD.step
            AND (
                NEW.step <> OLD.step + 1
                OR NOT EXISTS (
                    SELECT 1 FROM public.route_version p
                    JOIN public.proposal q ON q.id = NEW.proposal
                    WHERE p.route = NEW.route
                        AND p.rollout = NEW.id
                        AND p.version = (
                            SELECT MAX(l.version)
                            FROM public.route_version l
                            WHERE l.route = NEW.route
                        )
                        AND p.weight_bps = (
                            (q.policy)::json -> 'canary' -> 'steps'
                                -> (NEW.step)::int ->> 'weight_bps'
                        )::bigint
                )
            )
        THEN
            RAISE EXCEPTION
                'next_step: a rollout advances one step, after the route serves the new weight'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.state IN ('waiting', 'measuring', 'paused')
            AND EXISTS (
                SELECT 1 FROM public.rollout t
                WHERE t.route = NEW.route
                    AND t.id <> NEW.id
                    AND t.state IN ('waiting', 'measuring', 'paused')
            )
        THEN
            RAISE EXCEPTION 'route_busy: the route has a rollout under way'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("rollout"),
)
