"""The simple operations on proposals, break-glasses, fallback chains and eval runs.

The list of proposals and the approval are not here: the approval shows the review first.
`harness.operations.operations` declares the list of break-glasses, with the other lists for
people.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from harness.frame.configuration.setting import Range
from harness.frame.formatting import format_date_time, format_timestamp
from harness.frame.operation import (
    REASON,
    DialogTexts,
    FinishedOperation,
    Listing,
    Operation,
    OperationGroup,
    Parameter,
)
from harness.frame.people.access import Role
from harness.gate.run import EvalRun
from harness.proposals import break_glass, decisions, eval_queue, fallback_chain
from harness.proposals.candidates import cost_ratio, spares
from harness.proposals.context import ProposalsContext
from harness.proposals.fallback_chain import ChainEntry
from harness.routing.control.routes import known_targets
from harness.routing.evidence import MAX_DURATION, BreakGlass, EvidenceKind
from harness.routing.proposal import Proposal
from harness.routing.spare import Spare
from harness.routing.table import Route

_SHOWN_REASON: Final = replace(
    REASON, meaning="Reason, which every view of the proposal shows."
)


def _load_target_name(ctx: ProposalsContext, id_: str) -> str:
    with ctx.store.read() as tx:
        (target,) = known_targets(tx, [id_])
    return target.name


def _describe_cancelled_proposal(ctx: ProposalsContext, proposal: Proposal) -> list[str]:
    name = _load_target_name(ctx, proposal.candidate)
    text = (
        f"The comparison of **{name}** on route **{proposal.route}** ends; its measurements "
        "are kept."
    )
    return [text]


RETRY_PROPOSAL: Final = Operation(
    use_case=decisions.retry_proposal,
    role=Role.PROPOSER,
    words="Retry at once a proposal that waits for a provider; its maximum wait begins again.",
    command="retry ID",
    example="swapproof proposal retry p_3f9c2a61b7e04d58",
    endpoint="POST /proposals/{proposal}/retry",
    done=lambda retried: f"{retried.result.id} asks the provider again",
    dialog=DialogTexts(
        title="Ask again now",
        button="Ask again now",
        effect=lambda _ctx, _proposal: [
            "Swapproof asks the provider within seconds; its time limit starts again."
        ],
    ),
)
CANCEL_PROPOSAL: Final = Operation(
    use_case=decisions.cancel_proposal,
    role=Role.PROPOSER,
    words="Cancel an open proposal before its canary.",
    command="cancel ID",
    example="swapproof proposal cancel p_3f9c2a61b7e04d58",
    endpoint="POST /proposals/{proposal}/cancel",
    done=lambda cancelled: f"{cancelled.result.id} is cancelled",
    dialog=DialogTexts(
        title="Cancel the proposal",
        button="Cancel the proposal",
        effect=_describe_cancelled_proposal,
    ),
)
PROPOSALS: Final = OperationGroup(
    command="proposal",
    words="Proposals: requests to swap a route's model.",
    operations=(
        Operation(
            use_case=cost_ratio.accept_cost_of,
            role=Role.APPROVER,
            words="Accept the cost of CANDIDATE on ROUTE, for its next proposal. Needs an "
            "approver.",
            command="accept-cost ROUTE CANDIDATE",
            example="swapproof proposal accept-cost support openai/gpt-6-luna --up-to 2 "
            "--because accuracy",
            endpoint="POST /routes/{route}/accepted-costs",
            name="accept_cost",
            body="AcceptedCostBody",
            body_text="Accepts in advance that a candidate may cost `ratio` times the "
            "incumbent's cost.",
            status=201,
            parameters={
                "ratio": Parameter(
                    meaning="Accepted cost, as a multiple of the incumbent's cost.",
                    range=Range(1, math.inf),
                    flags=("--up-to",),
                    metavar="TIMES",
                ),
                "because": _SHOWN_REASON,
            },
            done=lambda accepted: (
                f"{accepted.result.text}. Now propose {accepted.inputs['candidate']} for "
                f"{accepted.inputs['route']}"
            ),
        ),
        Operation(
            use_case=decisions.refuse_proposal,
            role=Role.APPROVER,
            words="Reject a proposal that waits for approval.",
            command="reject ID",
            example='swapproof proposal reject p_3f9c2a61b7e04d58 --reason "not now"',
            endpoint="POST /proposals/{proposal}/reject",
            name="reject_proposal",
            parameters={"reason": replace(REASON, meaning="Reason, shown to the proposer.")},
            done=lambda rejected: f"{rejected.result.id} is rejected",
        ),
        RETRY_PROPOSAL,
        CANCEL_PROPOSAL,
        Operation(
            use_case=decisions.confirm_same_model,
            role=Role.APPROVER,
            words="Confirm that both models may be served by the same, before the verdict.\n\n"
            "Needs an approver. Swapproof then decides by the answers that it has.",
            command="confirm-same-model ID",
            example="swapproof proposal confirm-same-model p_3f9c2a61b7e04d58 --reason alias",
            endpoint="POST /proposals/{proposal}/confirm-same-model",
            name="confirm_same_model_proposal",
            parameters={"reason": _SHOWN_REASON},
            done=lambda confirmed: (
                f"{confirmed.result.id} continues: "
                f"{confirmed.result.same_model.text if confirmed.result.same_model else ''}"
            ),
        ),
    ),
)


def _describe_confirmation(ctx: ProposalsContext, record: BreakGlass) -> list[str]:
    name = _load_target_name(ctx, record.target)
    effect = (
        f"**{name}** gets all traffic of route **{record.route}**, without proof, until "
        f"**{format_date_time(record.expires_at)}**. **{record.proposer}** asked for it: "
        f"{record.reason.rstrip('.')}."
    )
    holds = "It holds while the route is frozen, too." if record.through_freeze else ""
    return [effect, holds]


def _describe_end(ctx: ProposalsContext, record: BreakGlass) -> list[str]:
    name = _load_target_name(ctx, record.incumbent)
    effect = (
        f"**{name}** serves route **{record.route}** again at once."
        if record.confirmed
        else f"**{name}** continues to serve route **{record.route}**."
    )
    return [f"{effect} Swaps can be proposed again."]


def _is_unconfirmed(record: BreakGlass) -> bool:
    return not record.confirmed


CONFIRM_BREAK_GLASS: Final = Operation(
    use_case=break_glass.confirm_break_glass,
    role=Role.ADMIN,
    words="Confirm a break-glass, as the second person; then the target serves.",
    command="confirm ID",
    example="swapproof route break-glass confirm bg_d05e719c3fa84b26",
    endpoint="POST /break-glass/{glass}/confirm",
    done=lambda confirmed: (
        f"route {confirmed.result.route} is served without proof until "
        f"{format_timestamp(confirmed.result.expires_at)} UTC ({confirmed.result.id})"
    ),
    dialog=DialogTexts(
        title="Confirm the break-glass",
        button="Serve without proof",
        icon="warning",
        effect=_describe_confirmation,
        applies=_is_unconfirmed,
        wide=True,
    ),
)
END_BREAK_GLASS: Final = Operation(
    use_case=break_glass.end_break_glass,
    role=Role.APPROVER,
    words="End a break-glass early: the previous model returns at once. One person is enough.",
    command="end ID",
    example='swapproof route break-glass end bg_d05e719c3fa84b26 --reason "the vendor is back"',
    endpoint="POST /break-glass/{glass}/end",
    done=lambda ended: f"{ended.result.id} has ended",
    dialog=DialogTexts(
        title="End the break-glass",
        button="End it",
        icon="warning",
        effect=_describe_end,
    ),
)
BREAK_GLASSES: Final = OperationGroup(
    command="route break-glass",
    words="Serve a route without proof: needs two people, a reason and an expiry.",
    operations=(
        Operation(
            use_case=break_glass.propose_break_glass,
            role=Role.APPROVER,
            words="Propose that TARGET serve without proof. A second person must confirm it.",
            command="propose ROUTE TARGET",
            example="swapproof route break-glass propose support openai/gpt-6-luna --for 2h "
            "--reason outage",
            endpoint="POST /break-glass",
            body="BreakGlassBody",
            body_text="A request that a target serve a route without proof.",
            status=201,
            needs_providers=True,
            parameters={
                "target": Parameter(meaning="Id or `provider/model`."),
                "lasts": Parameter(
                    meaning="Such as 2h, at most 7 days. Then the previous model returns.",
                    range=Range(0, MAX_DURATION.total_seconds(), above=True),
                    flags=("--for",),
                    api_name="for_s",
                ),
                "through_freeze": Parameter(meaning="Propose even if the route is frozen."),
            },
            done=lambda proposed: proposed.result.id,
            advice=lambda proposed: (
                f"another person, an admin, must confirm it before "
                f"{format_timestamp(proposed.result.confirm_by)} UTC: `swapproof route "
                f"break-glass confirm {proposed.result.id}`"
            ),
        ),
        CONFIRM_BREAK_GLASS,
        END_BREAK_GLASS,
    ),
)


def _list_chain_cells(
    listed: FinishedOperation[Sequence[ChainEntry]],
) -> Iterable[dict[str, object]]:
    for position, entry in enumerate(listed.result, 1):
        waiver = entry.waiver
        yield {
            "PLACE": position,
            "TARGET": entry.target.name,
            "CAPABLE": "yes" if entry.capable else "no",
            "EVIDENCE": _describe_evidence(entry),
            "UNTIL": waiver.expires_at if waiver else None,
            "BY": waiver.author if waiver else None,
            "REASON": waiver.reason if waiver else None,
        }


def _list_spare_cells(
    listed: FinishedOperation[Sequence[Spare]],
) -> Iterable[dict[str, object]]:
    for spare in listed.result:
        proof = spare.proof
        yield {
            "PLACE": spare.place,
            "TARGET": spare.name,
            "PROVEN": "yes" if spare.proven else "no",
            "AGE": spare.age or None,
            "VERDICT": proof.verdict or None,
            "UNTIL": proof.until if spare.proven else None,
            "WHY": proof.why or None,
        }


def _describe_evidence(entry: ChainEntry) -> str:
    match entry.evidence:
        case EvidenceKind.VERDICT:
            return f"verdict {entry.verdict}"
        case EvidenceKind.WAIVER:
            return "waiver, EXPIRED" if entry.waiver_expired else "waiver"
        case EvidenceKind.BASELINE:
            return "baseline"


def describe_chain(ctx: ProposalsContext, route: Route) -> str:
    chain = fallback_chain.list_fallbacks(ctx, route.name)
    names = ", ".join(entry.target.name for entry in chain)
    return f"route {route.name} falls back to {names or 'no other model'}"


def _describe_change(changed: FinishedOperation[Route]) -> str:
    return describe_chain(changed.ctx, changed.result)


# The API replaces a whole chain, so its endpoint is not here (`interfaces.api`).
FALLBACKS: Final = OperationGroup(
    command="route fallback",
    words="A route's fallback chain: targets that answer, in order, if its model fails.",
    operations=(
        Operation(
            use_case=fallback_chain.list_fallbacks,
            role=Role.VIEWER,
            words="List the chain, with the evidence of each fallback: baseline, verdict or "
            "waiver.",
            command="list ROUTE",
            example="swapproof route fallback list support",
            endpoint="GET /routes/{route}/fallbacks",
            listing=Listing(_list_chain_cells, empty="the route has no fallbacks"),
        ),
        Operation(
            use_case=spares.list_spares,
            role=Role.VIEWER,
            words="List the fallbacks and other proven models, each with its proof.",
            command="spares ROUTE",
            example="swapproof route fallback spares support",
            endpoint="GET /routes/{route}/spares",
            listing=Listing(_list_spare_cells, empty="the route has no spares"),
        ),
        Operation(
            use_case=fallback_chain.remove_fallback,
            role=Role.ADMIN,
            words="Remove a target from the chain.",
            command="remove ROUTE TARGET",
            example="swapproof route fallback remove support openai/gpt-6-luna --reason slow",
            done=_describe_change,
        ),
        Operation(
            use_case=fallback_chain.mark_capable,
            role=Role.ADMIN,
            words="Set whether a fallback may answer on a route of high stakes.",
            command="mark ROUTE TARGET",
            example="swapproof route fallback mark support openai/gpt-6-luna --capable "
            "--reason tested",
            parameters={
                "capable": Parameter(
                    meaning="Whether the fallback may answer on a route of high stakes.",
                    flags=("--capable/--not-capable",),
                )
            },
            done=_describe_change,
        ),
        Operation(
            use_case=fallback_chain.reorder_chain,
            role=Role.ADMIN,
            words="Reorder the chain. Name each of its targets once.",
            command="order ROUTE [TARGETS]...",
            example="swapproof route fallback order support openai/gpt-6-luna "
            "anthropic/claude-haiku-5-5 --reason speed",
            parameters={"order": Parameter(kind=tuple[str, ...])},
            done=_describe_change,
        ),
    ),
)


def _describe_cancellation(_: Any, run: EvalRun) -> list[str]:
    text = (
        f"This ends the run **{run.id}** of **{run.suite}** for good, and an open proposal "
        "that waits for it. The answers so far are kept."
    )
    return [text]


CANCEL_RUN: Final = Operation(
    use_case=eval_queue.cancel_run,
    role=Role.PROPOSER,
    words="Cancel a run for good, with each proposal that waits for it.",
    command="cancel RUN",
    example='swapproof eval cancel run_51d0a8c37be2f946 --reason "the wrong suite"',
    endpoint="POST /evals/{run}/cancel",
    name="cancel_eval",
    done=lambda cancelled: f"{cancelled.inputs['run']} is cancelled",
    dialog=DialogTexts(
        title="Cancel the run",
        button="End the run",
        opener=lambda _: "Cancel it",
        icon="block",
        effect=_describe_cancellation,
    ),
)
EVAL_RUNS: Final = OperationGroup(
    command="eval",
    words="Eval runs: one suite on one target.",
    operations=(CANCEL_RUN,),
)
