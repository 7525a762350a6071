"""Triggers of samples, targets and suites."""

from typing import Final

from harness.app.store.guards.refusing_trigger import RefusingTrigger

TRIGGERS: Final = (
    RefusingTrigger(
        name="sample_no_update",
        table="sample",
        event="UPDATE",
        columns=(
            "run",
            "item",
            "epoch",
            "position",
            "strict",
            "lenient",
            "input_tokens",
            "output_tokens",
            "cost_usd",
            "duration_s",
            "error",
            "served_model",
            "rule",
            "cached_tokens",
            "judge_calls",
            "judge_cost_usd",
            "served_build",
            "judge_model",
            "judge_build",
            "finish",
            "answer_sha256",
            "prompt_sha256",
        ),
        refuses=(
            "A change of a sample's score, numbers or place; only retention may blank its "
            "texts."
        ),
        example="UPDATE sample SET strict = 1.0",
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: what was measured is never changed or deleted')
        WHERE 1 = 1;
        """,
        postgres="""
        IF 1 = 1
        THEN
            RAISE EXCEPTION 'append_only: what was measured is never changed or deleted'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="sample_blank_only",
        table="sample",
        event="UPDATE",
        columns=(
            "answer",
            "prompt",
            "error_text",
        ),
        refuses="Another text in a sample; retention may only blank it.",
        example="UPDATE sample SET answer = 'a better answer'",
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: the text of a sample is blanked or stays')
        WHERE (NEW.answer <> OLD.answer AND NEW.answer NOT IN (''))
            OR (NEW.prompt <> OLD.prompt AND NEW.prompt NOT IN (''))
            OR (NEW.error_text <> OLD.error_text AND NEW.error_text NOT IN (''));
        """,
        postgres="""
        IF (NEW.answer <> OLD.answer AND NEW.answer NOT IN (''))
            OR (NEW.prompt <> OLD.prompt AND NEW.prompt NOT IN (''))
            OR (NEW.error_text <> OLD.error_text AND NEW.error_text NOT IN (''))
        THEN
            RAISE EXCEPTION 'append_only: the text of a sample is blanked or stays'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="sample_no_delete",
        table="sample",
        event="DELETE",
        refuses="The deletion of a sample.",
        example="DELETE FROM sample",
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: what was measured is never changed or deleted')
        WHERE 1 = 1;
        """,
        postgres="""
        IF 1 = 1
        THEN
            RAISE EXCEPTION 'append_only: what was measured is never changed or deleted'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="target_guard",
        table="target",
        event="INSERT",
        refuses="A target whose id exists with another provider, model, parameters or patch.",
        example="""
        INSERT INTO target (id, provider, model, parameters, request_patch)
        VALUES ('t_old', 'sim', 'another', '{}', '{}')
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: this target exists with other content')
        WHERE EXISTS (
            SELECT 1 FROM target t
            WHERE t.id = NEW.id
                AND (
                    t.provider <> NEW.provider
                    OR t.model <> NEW.model
                    OR t.parameters <> NEW.parameters
                    OR t.request_patch <> NEW.request_patch
                )
        );
        """,
        postgres="""
        IF EXISTS (
            SELECT 1 FROM public.target t
            WHERE t.id = NEW.id
                AND (
                    t.provider <> NEW.provider
                    OR t.model <> NEW.model
                    OR t.parameters <> NEW.parameters
                    OR t.request_patch <> NEW.request_patch
                )
        )
        THEN
            RAISE EXCEPTION 'append_only: this target exists with other content'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
    RefusingTrigger(
        name="suite_guard",
        table="suite",
        event="INSERT",
        refuses="A suite whose digest exists with other content.",
        example="""
        INSERT INTO suite (
            digest, name, version, data_sha256, scorer, template, items, created_at
        ) VALUES (
            'd', 's', '1', '0', 'another', '', 9, 1790000000000000
        )
        """,
        sqlite="""
        SELECT RAISE(ABORT, 'append_only: this suite exists with other content')
        WHERE EXISTS (
            SELECT 1 FROM suite t
            WHERE t.digest = NEW.digest
                AND (
                    t.name <> NEW.name
                    OR t.version <> NEW.version
                    OR t.data_sha256 <> NEW.data_sha256
                    OR t.scorer <> NEW.scorer
                    OR t.template <> NEW.template
                    OR t.items <> NEW.items
                )
        );
        """,
        postgres="""
        IF EXISTS (
            SELECT 1 FROM public.suite t
            WHERE t.digest = NEW.digest
                AND (
                    t.name <> NEW.name
                    OR t.version <> NEW.version
                    OR t.data_sha256 <> NEW.data_sha256
                    OR t.scorer <> NEW.scorer
                    OR t.template <> NEW.template
                    OR t.items <> NEW.items
                )
        )
        THEN
            RAISE EXCEPTION 'append_only: this suite exists with other content'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    ),
)
