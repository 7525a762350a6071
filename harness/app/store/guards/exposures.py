"""Triggers of the exposures of canaries, their events and counts."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger, refuse_always

# The rollout of a row is still compared. A name of first callers (`name_first_callers`) has the
# suffix `.first`.
_IS_COMPARED: Final = """EXISTS (
            SELECT 1 FROM {schema}rollout r
            WHERE r.id IN (OLD.rollout, replace(OLD.rollout, '.first', ''))
                AND (
                    r.state IN ('waiting', 'measuring', 'paused')
                    OR (r.state = 'promoted' AND r.bake_ends_at IS NOT NULL)
                )
        )"""


def _deleted_after_end(table: str) -> RefusingTrigger:
    """Builds the trigger that refuses to delete rows of a rollout that is still compared."""
    message = f"append_only: {table} is deleted only after the end of its rollout"
    return RefusingTrigger(
        name=f"{table}_no_delete",
        table=table,
        event="DELETE",
        refuses="The deletion of a row whose rollout is live, or promoted with a running bake.",
        example=f"DELETE FROM {table} WHERE rollout = 'ro_1.first'",  # noqa: S608 - constants
        sqlite=f"""
        SELECT RAISE(ABORT, '{message}')
        WHERE {_IS_COMPARED.format(schema="")};
        """,
        postgres=f"""
        IF {_IS_COMPARED.format(schema="public.")}
        THEN
            RAISE EXCEPTION '{message}'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    )


def _refuse_update(table: str, change: str) -> RefusingTrigger:
    message = f"append_only: {table} is never changed"
    example = f"UPDATE {table} SET {change}"  # noqa: S608 - constants
    return refuse_always(f"{table}_no_update", table, "UPDATE", message, example)


TRIGGERS: Final = (
    _refuse_update("exposure", "canary = NOT canary"),
    _deleted_after_end("exposure"),
    _refuse_update("exposure_event", "outcome = 'answered'"),
    _deleted_after_end("exposure_event"),
    RefusingTrigger(
        name="exposure_count_rises",
        table="exposure_count",
        event="UPDATE",
        refuses="A count of requests that falls, and a count with another key.",
        example="UPDATE exposure_count SET requests = requests - 1",
        sqlite="""
        SELECT RAISE(ABORT, 'never_back: a count of requests never falls')
        WHERE NEW.requests < OLD.requests
            OR NEW.rollout IS NOT OLD.rollout
            OR NEW.minute IS NOT OLD.minute
            OR NEW.worker IS NOT OLD.worker
            OR NEW.weight_bps IS NOT OLD.weight_bps
            OR NEW.canary IS NOT OLD.canary
            OR NEW.reason IS NOT OLD.reason;
        """,
        postgres="""
        IF NEW.requests < OLD.requests
            OR NEW.rollout IS DISTINCT FROM OLD.rollout
            OR NEW.minute IS DISTINCT FROM OLD.minute
            OR NEW.worker IS DISTINCT FROM OLD.worker
            OR NEW.weight_bps IS DISTINCT FROM OLD.weight_bps
            OR NEW.canary IS DISTINCT FROM OLD.canary
            OR NEW.reason IS DISTINCT FROM OLD.reason
        THEN
            RAISE EXCEPTION 'never_back: a count of requests never falls'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    _deleted_after_end("exposure_count"),
    RefusingTrigger(
        name="exposure_arrival_rises",
        table="exposure_arrival",
        event="UPDATE",
        refuses="A last number that falls, which would give a number to two rows.",
        example="UPDATE exposure_arrival SET number = number - 1",
        sqlite="""
        SELECT RAISE(ABORT, 'never_back: the last number of a rollout''s rows never falls')
        WHERE NEW.number < OLD.number OR NEW.rollout IS NOT OLD.rollout;
        """,
        postgres="""
        IF NEW.number < OLD.number OR NEW.rollout IS DISTINCT FROM OLD.rollout
        THEN
            RAISE EXCEPTION 'never_back: the last number of a rollout''s rows never falls'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    _deleted_after_end("exposure_arrival"),
)
