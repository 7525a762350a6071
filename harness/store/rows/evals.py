"""Converts targets, suites, eval runs and samples to column values and back; `digests` are a
sample's text hashes, which stay when the texts are blanked.
"""

from hashlib import sha256

from harness.domain.evals.run import EvalRun, RunBudget, RunState, Sample, SampleError, SuitePin
from harness.domain.routing.target import RequestPatch, Target
from harness.store.rows import Row, Values, plain
from harness.store.schema.columns import storable


def target_to_row(target: Target) -> Values:
    return {"id": target.id, **target.as_json()}


def target_from_row(row: Row) -> Target:
    return Target(row.provider, row.model, row.parameters, RequestPatch(**row.request_patch))


def suite_from_row(row: Row) -> SuitePin:
    return SuitePin(
        row.name, row.version, row.data_sha256, row.scorer, row.template, row.items, row.texts
    )


def suite_to_row(pin: SuitePin) -> Values:
    return {
        "digest": pin.digest,
        "name": pin.name,
        "version": pin.version,
        "data_sha256": pin.data_sha256,
        "scorer": pin.scorer,
        "template": pin.template,
        "items": pin.items,
        "texts": pin.texts,
    }


def run_to_row(run: EvalRun) -> Values:
    return {
        "id": run.id,
        "suite": run.suite,
        "suite_digest": run.suite_digest,
        "target": run.target,
        "order_seed": str(run.order_seed),
        "epochs": run.epochs,
        "wanted": run.wanted,
        "state": run.state.value,
        "created_at": run.created_at,
        "max_tokens": run.budget.max_tokens,
        "max_cost_usd": run.budget.max_cost_usd,
        "lease_owner": run.lease_owner,
        "lease_until": run.lease_until,
        "failures": run.failures,
        "message": run.message,
        "fingerprint": run.fingerprint,
    }


def run_from_row(row: Row) -> EvalRun:
    return EvalRun(
        id=row.id,
        suite=row.suite,
        suite_digest=row.suite_digest,
        target=row.target,
        order_seed=int(row.order_seed),
        epochs=row.epochs,
        wanted=row.wanted,
        state=RunState(row.state),
        created_at=row.created_at,
        budget=RunBudget(row.max_tokens, row.max_cost_usd),
        lease_owner=row.lease_owner,
        lease_until=row.lease_until,
        failures=row.failures,
        message=row.message,
    )


def sample_to_row(sample: Sample) -> Values:
    return {
        "run": sample.run,
        "item": sample.item,
        "epoch": sample.epoch,
        "position": sample.position,
        "answer": sample.answer,
        "strict": sample.strict,
        "lenient": sample.lenient,
        "input_tokens": sample.input_tokens,
        "output_tokens": sample.output_tokens,
        "cost_usd": sample.cost_usd,
        "duration_s": sample.duration_s,
        "error": sample.error.value if sample.error else None,
        "error_text": sample.error_text,
        "served_model": sample.served_model,
        "prompt": sample.prompt,
        **text_digests(sample.answer, sample.prompt),
        "rule": sample.rule,
        "cached_tokens": sample.cached_tokens,
        "judge_calls": sample.judge_calls,
        "judge_cost_usd": sample.judge_cost_usd,
        "served_build": sample.served_build,
        "judge_model": sample.judge_model,
        "judge_build": sample.judge_build,
    }


def text_digests(answer: str, prompt: str) -> dict[str, str]:
    """SHA-256 of a sample's texts as they are stored; they outlive the texts."""
    return {
        "answer_sha256": sha256(storable(answer).encode()).hexdigest(),
        "prompt_sha256": sha256(storable(prompt).encode()).hexdigest(),
    }


def sample_from_row(row: Row) -> Sample:
    values = plain(row, "answer_sha256", "prompt_sha256")
    error = values.pop("error")
    return Sample(**values, error=SampleError(error) if error else None)
