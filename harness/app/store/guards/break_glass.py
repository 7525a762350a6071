"""Triggers of break-glasses and the incumbents that they allow."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, never_deleted

TRIGGERS: Final = (
    RefusingTrigger(
        name="route_version_break_glass",
        table="route_version",
        event="INSERT",
        refuses=(
            "An incumbent by waiver without a confirmed, current break-glass of this route "
            "and target, and a second use of a break-glass."
        ),
        example="""
        INSERT INTO route_version (
            route, version, revision, kind, incumbent, incumbent_evidence, prev_version,
            prev_incumbent, weight_bps, settings, at, actor, reason, break_glass
        ) VALUES (
            'a', 2, 4, 'restore', 't_old', 'e_old', 1, 't_old', 0, '{}',
            1790000000000000, 'eve', '', 'bg_1'
        )
        """,
        sqlite="""
        SELECT RAISE(
            ABORT, 'break_glass_named: only an incumbent by waiver names a break-glass'
        )
        WHERE (NEW.break_glass IS NOT NULL) <> EXISTS (
            SELECT 1 FROM evidence e
            WHERE e.id = NEW.incumbent_evidence AND e.kind = 'waiver'
        );
        SELECT RAISE(
            ABORT,
            'break_glass_missing: no confirmed, current break-glass of this route allows this incumbent'
        )
        WHERE NEW.kind = 'restore'
            AND NEW.break_glass IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM break_glass b
                JOIN evidence e ON e.waiver_id = b.waiver
                WHERE b.id = NEW.break_glass
                    AND b.route = NEW.route
                    AND e.id = NEW.incumbent_evidence
                    AND b.target = NEW.incumbent
                    AND b.incumbent = NEW.prev_incumbent
                    AND b.ended_at IS NULL
                    AND b.confirmed_at <= NEW.at
                    AND NEW.at < b.expires_at
            );
        SELECT RAISE(
            ABORT,
            'break_glass_stays: a break-glass serves only its confirmed target, and only once'
        )
        WHERE NEW.break_glass IS NOT NULL
            AND (
                NEW.kind NOT IN ('restore', 'settings')
                OR (
                    NEW.kind = 'restore'
                    AND EXISTS (
                        SELECT 1 FROM route_version o
                        WHERE o.route = NEW.route
                            AND o.break_glass = NEW.break_glass
                    )
                )
                OR (
                    NEW.kind = 'settings'
                    AND NOT EXISTS (
                        SELECT 1 FROM route_version p
                        WHERE p.route = NEW.route
                            AND p.version = NEW.version - 1
                            AND p.break_glass = NEW.break_glass
                    )
                )
            );
        SELECT RAISE(
            ABORT,
            'frozen: the route is frozen, and the break-glass does not include `through_freeze`'
        )
        WHERE NEW.kind = 'restore'
            AND NEW.break_glass IS NOT NULL
            AND EXISTS (
                SELECT 1 FROM switch f
                WHERE (f.route IS NULL OR f.route = NEW.route)
                    AND f.kind = 'freeze'
                    AND f.lifted_at IS NULL
                    AND COALESCE(f.starts_at, f.created_at) <= NEW.at
                    AND NEW.at < f.expires_at
            )
            AND NOT EXISTS (
                SELECT 1 FROM break_glass b
                JOIN evidence e ON e.waiver_id = b.waiver
                WHERE b.id = NEW.break_glass
                    AND b.route = NEW.route
                    AND e.id = NEW.incumbent_evidence
                    AND b.target = NEW.incumbent
                    AND b.through_freeze
            );
        """,  # noqa: E501 - a message is one literal
        postgres="""
        IF (NEW.break_glass IS NOT NULL) <> EXISTS (
            SELECT 1 FROM public.evidence e
            WHERE e.id = NEW.incumbent_evidence AND e.kind = 'waiver'
        )
        THEN
            RAISE EXCEPTION 'break_glass_named: only an incumbent by waiver names a break-glass'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'restore'
            AND NEW.break_glass IS NOT NULL
            AND NOT EXISTS (
                SELECT 1 FROM public.break_glass b
                JOIN public.evidence e ON e.waiver_id = b.waiver
                WHERE b.id = NEW.break_glass
                    AND b.route = NEW.route
                    AND e.id = NEW.incumbent_evidence
                    AND b.target = NEW.incumbent
                    AND b.incumbent = NEW.prev_incumbent
                    AND b.ended_at IS NULL
                    AND b.confirmed_at <= NEW.at
                    AND NEW.at < b.expires_at
            )
        THEN
            RAISE EXCEPTION
            'break_glass_missing: no confirmed, current break-glass of this route allows this incumbent'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.break_glass IS NOT NULL
            AND (
                NEW.kind NOT IN ('restore', 'settings')
                OR (
                    NEW.kind = 'restore'
                    AND EXISTS (
                        SELECT 1 FROM public.route_version o
                        WHERE o.route = NEW.route
                            AND o.break_glass = NEW.break_glass
                    )
                )
                OR (
                    NEW.kind = 'settings'
                    AND NOT EXISTS (
                        SELECT 1 FROM public.route_version p
                        WHERE p.route = NEW.route
                            AND p.version = NEW.version - 1
                            AND p.break_glass = NEW.break_glass
                    )
                )
            )
        THEN
            RAISE EXCEPTION
            'break_glass_stays: a break-glass serves only its confirmed target, and only once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.kind = 'restore'
            AND NEW.break_glass IS NOT NULL
            AND EXISTS (
                SELECT 1 FROM public.switch f
                WHERE (f.route IS NULL OR f.route = NEW.route)
                    AND f.kind = 'freeze'
                    AND f.lifted_at IS NULL
                    AND COALESCE(f.starts_at, f.created_at) <= NEW.at
                    AND NEW.at < f.expires_at
            )
            AND NOT EXISTS (
                SELECT 1 FROM public.break_glass b
                JOIN public.evidence e ON e.waiver_id = b.waiver
                WHERE b.id = NEW.break_glass
                    AND b.route = NEW.route
                    AND e.id = NEW.incumbent_evidence
                    AND b.target = NEW.incumbent
                    AND b.through_freeze
            )
        THEN
            RAISE EXCEPTION
            'frozen: the route is frozen, and the break-glass does not include `through_freeze`'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,  # noqa: E501 - a message is one literal
    ),
    RefusingTrigger(
        name="break_glass_guard",
        table="break_glass",
        event="INSERT",
        refuses=(
            "A break-glass that is confirmed from the start, lasts more than seven days, or "
            "that no person requested with their own key; a second open break-glass of a "
            "route."
        ),
        example="""
        INSERT INTO break_glass (
            id, route, incumbent, target, reason, through_freeze, proposer,
            proposer_principal, created_at, confirm_by, expires_at, ended_because
        ) VALUES (
            'bg_2', 'b', 't_old', 't_third', 'outage', FALSE, 'ada', 'local',
            1790000000000000, 1790000000000001, 1790700000000000, ''
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'version_taken: a row with this key exists')
        WHERE EXISTS (SELECT 1 FROM break_glass t WHERE t.id = NEW.id);
        SELECT RAISE(ABORT, 'route_busy: the route has a break_glass under way')
        WHERE NEW.ended_at IS NULL
            AND EXISTS (
                SELECT 1 FROM break_glass t
                WHERE t.route = NEW.route AND t.id <> NEW.id AND t.ended_at IS NULL
            );
        SELECT RAISE(
            ABORT,
            'break_glass_asked: a break-glass is requested before it is confirmed or ends'
        )
        WHERE NEW.confirmed_at IS NOT NULL OR NEW.ended_at IS NOT NULL;
        SELECT RAISE(ABORT, 'break_glass_ends: a break-glass lasts at most seven days')
        WHERE NEW.expires_at <= NEW.created_at
            OR NEW.expires_at > NEW.created_at + 604800000000
            OR NEW.confirm_by > NEW.expires_at;
        SELECT RAISE(ABORT, 'four_eyes: a person must request a break-glass with their own key')
        WHERE NOT EXISTS (
                SELECT 1 FROM principal q
                WHERE q.id = NEW.proposer_principal AND q.kind IN ('person', 'local')
            )
            OR NOT (
                NEW.proposer_key IS NULL
                OR EXISTS (
                    SELECT 1 FROM api_key k
                    WHERE k.id = NEW.proposer_key
                        AND k.principal = NEW.proposer_principal
                )
            );
        """,
        postgres="""
        IF EXISTS (SELECT 1 FROM public.break_glass t WHERE t.id = NEW.id)
        THEN
            RAISE EXCEPTION 'version_taken: a row with this key exists'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.ended_at IS NULL
            AND EXISTS (
                SELECT 1 FROM public.break_glass t
                WHERE t.route = NEW.route AND t.id <> NEW.id AND t.ended_at IS NULL
            )
        THEN
            RAISE EXCEPTION 'route_busy: the route has a break_glass under way'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.confirmed_at IS NOT NULL OR NEW.ended_at IS NOT NULL
        THEN
            RAISE EXCEPTION
                'break_glass_asked: a break-glass is requested before it is confirmed or ends'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.expires_at <= NEW.created_at
            OR NEW.expires_at > NEW.created_at + 604800000000
            OR NEW.confirm_by > NEW.expires_at
        THEN
            RAISE EXCEPTION 'break_glass_ends: a break-glass lasts at most seven days'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NOT EXISTS (
                SELECT 1 FROM public.principal q
                WHERE q.id = NEW.proposer_principal AND q.kind IN ('person', 'local')
            )
            OR NOT (
                NEW.proposer_key IS NULL
                OR EXISTS (
                    SELECT 1 FROM public.api_key k
                    WHERE k.id = NEW.proposer_key
                        AND k.principal = NEW.proposer_principal
                )
            )
        THEN
            RAISE EXCEPTION 'four_eyes: a person must request a break-glass with their own key'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="break_glass_no_rewrite",
        table="break_glass",
        event="UPDATE",
        refuses=(
            "A change of a break-glass other than one confirmation, in time, by another "
            "person with their own key and with its own waiver, and one end."
        ),
        example="""
        UPDATE break_glass SET
            confirmer = proposer, confirmer_principal = proposer_principal,
            confirmed_at = created_at, waiver = 'w_1'
        WHERE id = 'bg_1'
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: an ended break-glass does not change')
        WHERE OLD.ended_at IS NOT NULL;
        SELECT RAISE(ABORT, 'append_only: the content of a break-glass request does not change')
        WHERE NEW.id IS NOT OLD.id
            OR NEW.route IS NOT OLD.route
            OR NEW.incumbent IS NOT OLD.incumbent
            OR NEW.target IS NOT OLD.target
            OR NEW.reason IS NOT OLD.reason
            OR NEW.through_freeze IS NOT OLD.through_freeze
            OR NEW.proposer IS NOT OLD.proposer
            OR NEW.proposer_principal IS NOT OLD.proposer_principal
            OR NEW.proposer_key IS NOT OLD.proposer_key
            OR NEW.created_at IS NOT OLD.created_at
            OR NEW.confirm_by IS NOT OLD.confirm_by
            OR NEW.expires_at IS NOT OLD.expires_at;
        SELECT RAISE(ABORT, 'append_only: a break-glass is confirmed once')
        WHERE OLD.confirmed_at IS NOT NULL
            AND (
                NEW.confirmer IS NOT OLD.confirmer
                OR NEW.confirmer_principal IS NOT OLD.confirmer_principal
                OR NEW.confirmer_key IS NOT OLD.confirmer_key
                OR NEW.confirmed_at IS NOT OLD.confirmed_at
                OR NEW.waiver IS NOT OLD.waiver
            );
        SELECT RAISE(
            ABORT, 'four_eyes: another person must confirm a break-glass with their own key'
        )
        WHERE NEW.confirmed_at IS NOT NULL
            AND OLD.confirmed_at IS NULL
            AND (
                COALESCE(
                    (
                        SELECT l.person FROM person_link l
                        WHERE l.principal = NEW.confirmer_principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM person_link m
                                WHERE m.principal = NEW.confirmer_principal
                            )
                    ),
                    NEW.confirmer_principal
                ) = COALESCE(
                    (
                        SELECT l.person FROM person_link l
                        WHERE l.principal = NEW.proposer_principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM person_link m
                                WHERE m.principal = NEW.proposer_principal
                            )
                    ),
                    NEW.proposer_principal
                )
                OR NOT EXISTS (
                    SELECT 1 FROM principal q
                    WHERE q.id = NEW.confirmer_principal
                        AND q.kind IN ('person', 'local')
                )
                OR NOT (
                    NEW.confirmer_key IS NULL
                    OR EXISTS (
                        SELECT 1 FROM api_key k
                        WHERE k.id = NEW.confirmer_key
                            AND k.principal = NEW.confirmer_principal
                    )
                )
                OR NEW.confirmer_key = NEW.proposer_key
            );
        SELECT RAISE(
            ABORT, 'break_glass_late: a break-glass is confirmed before it expires or ends'
        )
        WHERE NEW.confirmed_at IS NOT NULL
            AND OLD.confirmed_at IS NULL
            AND (
                NEW.ended_at IS NOT NULL
                OR NEW.confirmed_at < NEW.created_at
                OR NEW.confirmed_at >= NEW.confirm_by
            );
        SELECT RAISE(
            ABORT,
            'waiver_missing: a confirmed break-glass needs its own waiver for the same time'
        )
        WHERE NEW.confirmed_at IS NOT NULL
            AND OLD.confirmed_at IS NULL
            AND (
                NOT EXISTS (
                    SELECT 1 FROM waiver w
                    WHERE w.id = NEW.waiver
                        AND w.route = NEW.route
                        AND w.target = NEW.target
                        AND w.expires_at = NEW.expires_at
                )
                OR EXISTS (
                    SELECT 1 FROM break_glass o
                    WHERE o.waiver = NEW.waiver AND o.id <> NEW.id
                )
            );
        """,
        postgres="""
        IF OLD.ended_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'append_only: an ended break-glass does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.id IS DISTINCT FROM OLD.id
            OR NEW.route IS DISTINCT FROM OLD.route
            OR NEW.incumbent IS DISTINCT FROM OLD.incumbent
            OR NEW.target IS DISTINCT FROM OLD.target
            OR NEW.reason IS DISTINCT FROM OLD.reason
            OR NEW.through_freeze IS DISTINCT FROM OLD.through_freeze
            OR NEW.proposer IS DISTINCT FROM OLD.proposer
            OR NEW.proposer_principal IS DISTINCT FROM OLD.proposer_principal
            OR NEW.proposer_key IS DISTINCT FROM OLD.proposer_key
            OR NEW.created_at IS DISTINCT FROM OLD.created_at
            OR NEW.confirm_by IS DISTINCT FROM OLD.confirm_by
            OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
        THEN
            RAISE EXCEPTION 'append_only: the content of a break-glass request does not change'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF OLD.confirmed_at IS NOT NULL
            AND (
                NEW.confirmer IS DISTINCT FROM OLD.confirmer
                OR NEW.confirmer_principal IS DISTINCT FROM OLD.confirmer_principal
                OR NEW.confirmer_key IS DISTINCT FROM OLD.confirmer_key
                OR NEW.confirmed_at IS DISTINCT FROM OLD.confirmed_at
                OR NEW.waiver IS DISTINCT FROM OLD.waiver
            )
        THEN
            RAISE EXCEPTION 'append_only: a break-glass is confirmed once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.confirmed_at IS NOT NULL
            AND OLD.confirmed_at IS NULL
            AND (
                COALESCE(
                    (
                        SELECT l.person FROM public.person_link l
                        WHERE l.principal = NEW.confirmer_principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM public.person_link m
                                WHERE m.principal = NEW.confirmer_principal
                            )
                    ),
                    NEW.confirmer_principal
                ) = COALESCE(
                    (
                        SELECT l.person FROM public.person_link l
                        WHERE l.principal = NEW.proposer_principal
                            AND l.number = (
                                SELECT MAX(m.number)
                                FROM public.person_link m
                                WHERE m.principal = NEW.proposer_principal
                            )
                    ),
                    NEW.proposer_principal
                )
                OR NOT EXISTS (
                    SELECT 1 FROM public.principal q
                    WHERE q.id = NEW.confirmer_principal
                        AND q.kind IN ('person', 'local')
                )
                OR NOT (
                    NEW.confirmer_key IS NULL
                    OR EXISTS (
                        SELECT 1 FROM public.api_key k
                        WHERE k.id = NEW.confirmer_key
                            AND k.principal = NEW.confirmer_principal
                    )
                )
                OR NEW.confirmer_key = NEW.proposer_key
            )
        THEN
            RAISE EXCEPTION
                'four_eyes: another person must confirm a break-glass with their own key'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.confirmed_at IS NOT NULL
            AND OLD.confirmed_at IS NULL
            AND (
                NEW.ended_at IS NOT NULL
                OR NEW.confirmed_at < NEW.created_at
                OR NEW.confirmed_at >= NEW.confirm_by
            )
        THEN
            RAISE EXCEPTION
                'break_glass_late: a break-glass is confirmed before it expires or ends'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF NEW.confirmed_at IS NOT NULL
            AND OLD.confirmed_at IS NULL
            AND (
                NOT EXISTS (
                    SELECT 1 FROM public.waiver w
                    WHERE w.id = NEW.waiver
                        AND w.route = NEW.route
                        AND w.target = NEW.target
                        AND w.expires_at = NEW.expires_at
                )
                OR EXISTS (
                    SELECT 1 FROM public.break_glass o
                    WHERE o.waiver = NEW.waiver AND o.id <> NEW.id
                )
            )
        THEN
            RAISE EXCEPTION
                'waiver_missing: a confirmed break-glass needs its own waiver for the same time'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    never_deleted("break_glass"),
)
