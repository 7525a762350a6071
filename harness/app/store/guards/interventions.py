"""Triggers of kill switches, freezes and shadows."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, never_deleted

TRIGGERS: Final = (
    RefusingTrigger(
        name="switch_guard",
        table="switch",
        event="INSERT",
        refuses="A kill switch or freeze whose id exists or that is lifted from the start.",
        example="""
        INSERT INTO switch (
            id, kind, name, reason, actor, created_at, source, lifted_at, lifted_by
        ) VALUES (
            'sw_2', 'provider', 'sim', 'outage', 'eve', 1790000000000000, 'cli',
            1790000000000000, 'eve'
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM switch t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'switch_thrown: a switch is thrown before it is lifted')
        WHERE NEW.lifted_at IS NOT NULL;
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.switch t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.lifted_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'switch_thrown: a switch is thrown before it is lifted'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="switch_no_rewrite",
        table="switch",
        event="UPDATE",
        refuses="A change of a kill switch or freeze other than that it is lifted once.",
        example="UPDATE switch SET name = 'another' WHERE id = 'sw_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: a switch is lifted once')
        WHERE OLD.lifted_at IS NOT NULL;
        SELECT RAISE(ABORT, 'append_only: a switch is only ever lifted')
        WHERE NEW.lifted_at IS NULL;
        SELECT RAISE(ABORT, 'append_only: what was thrown does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.route IS NOT OLD.route
            OR NEW.kind IS NOT OLD.kind
            OR NEW.name IS NOT OLD.name
            OR NEW.reason IS NOT OLD.reason
            OR NEW.actor IS NOT OLD.actor
            OR NEW.created_at IS NOT OLD.created_at
            OR NEW.expires_at IS NOT OLD.expires_at
            OR NEW.source IS NOT OLD.source
            OR NEW.starts_at IS NOT OLD.starts_at;
        """,
        postgres="""
        IF OLD.lifted_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'append_only: a switch is lifted once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.lifted_at IS NULL
        THEN
            RAISE EXCEPTION 'append_only: a switch is only ever lifted'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.route IS DISTINCT FROM OLD.route
            OR NEW.kind IS DISTINCT FROM OLD.kind
            OR NEW.name IS DISTINCT FROM OLD.name
            OR NEW.reason IS DISTINCT FROM OLD.reason
            OR NEW.actor IS DISTINCT FROM OLD.actor
            OR NEW.created_at IS DISTINCT FROM OLD.created_at
            OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
            OR NEW.source IS DISTINCT FROM OLD.source
            OR NEW.starts_at IS DISTINCT FROM OLD.starts_at
        THEN
            RAISE EXCEPTION 'append_only: what was thrown does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("switch"),
    RefusingTrigger(
        name="shadow_guard",
        table="shadow",
        event="INSERT",
        refuses=(
            "A second running shadow of a route, and a shadow that is ended from the start."
        ),
        example="INSERT INTO shadow SELECT * FROM shadow WHERE id = 'sh_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM shadow t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'shadow_started: a shadow starts before it ends')
        WHERE NEW.ended_at IS NOT NULL;
        SELECT RAISE(ABORT, 'route_busy: the route has a shadow under way')
        WHERE NEW.ended_at IS NULL
            AND EXISTS (
                SELECT 1 FROM shadow t
                WHERE t.route = NEW.route AND t.id <> NEW.id AND t.ended_at IS NULL
            );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.shadow t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.ended_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'shadow_started: a shadow starts before it ends'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.ended_at IS NULL
            AND EXISTS (
                SELECT 1 FROM public.shadow t
                WHERE t.route = NEW.route AND t.id <> NEW.id AND t.ended_at IS NULL
            )
        THEN
            RAISE EXCEPTION 'route_busy: the route has a shadow under way'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="shadow_no_rewrite",
        table="shadow",
        event="UPDATE",
        refuses="A change of a shadow other than one end.",
        example="UPDATE shadow SET share_bps = 10000 WHERE id = 'sh_1'",
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: a shadow ends once')
        WHERE OLD.ended_at IS NOT NULL;
        SELECT RAISE(ABORT, 'append_only: a shadow is only ever ended')
        WHERE NEW.ended_at IS NULL;
        SELECT RAISE(ABORT, 'append_only: what was started does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.route IS NOT OLD.route
            OR NEW.incumbent IS NOT OLD.incumbent
            OR NEW.candidate IS NOT OLD.candidate
            OR NEW.data_class IS NOT OLD.data_class
            OR NEW.share_bps IS NOT OLD.share_bps
            OR NEW.at_once IS NOT OLD.at_once
            OR NEW.requests_per_day IS NOT OLD.requests_per_day
            OR NEW.usd_per_day IS NOT OLD.usd_per_day
            OR NEW.proposal IS NOT OLD.proposal
            OR NEW.reason IS NOT OLD.reason
            OR NEW.started_by IS NOT OLD.started_by
            OR NEW.started_at IS NOT OLD.started_at
            OR NEW.expires_at IS NOT OLD.expires_at
            OR NEW.terms IS NOT OLD.terms;
        """,
        postgres="""
        IF OLD.ended_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'append_only: a shadow ends once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.ended_at IS NULL
        THEN
            RAISE EXCEPTION 'append_only: a shadow is only ever ended'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.route IS DISTINCT FROM OLD.route
            OR NEW.incumbent IS DISTINCT FROM OLD.incumbent
            OR NEW.candidate IS DISTINCT FROM OLD.candidate
            OR NEW.data_class IS DISTINCT FROM OLD.data_class
            OR NEW.share_bps IS DISTINCT FROM OLD.share_bps
            OR NEW.at_once IS DISTINCT FROM OLD.at_once
            OR NEW.requests_per_day IS DISTINCT FROM OLD.requests_per_day
            OR NEW.usd_per_day IS DISTINCT FROM OLD.usd_per_day
            OR NEW.proposal IS DISTINCT FROM OLD.proposal
            OR NEW.reason IS DISTINCT FROM OLD.reason
            OR NEW.started_by IS DISTINCT FROM OLD.started_by
            OR NEW.started_at IS DISTINCT FROM OLD.started_at
            OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
            OR NEW.terms IS DISTINCT FROM OLD.terms
        THEN
            RAISE EXCEPTION 'append_only: what was started does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("shadow"),
)
