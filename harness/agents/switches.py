"""Creates switch requests, and applies people's decisions about them.

Swapproof refuses a request if the target cannot continue the conversation, and expires it if no
person decides in time. The agent waits for the decision, or gets it by `list_notes` before its
next turn.

The texts are in `switch_request`. Only an approver decides about a request.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Final

from harness.agents import agents
from harness.agents.context import AgentsContext
from harness.agents.message import (
    MessageRole,
    SessionMessage,
    list_misfits,
    list_omissions,
)
from harness.agents.models import load_figures
from harness.agents.records import (
    Agents,
    SessionMessages,
    Sessions,
    SwitchRequests,
)
from harness.agents.switch_request import (
    ModelSwitchRequest,
    SwitchState,
    decision_text,
    inert_text,
    switch_facts,
    switch_lines,
    switch_question,
    visible_text,
)
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alerts import raise_alert
from harness.frame.errors import Conflict, InputError, NotAllowed, StaleWrite
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.providers.records import Targets
from harness.providers.registry import targets
from harness.providers.registry.named_models import model_capabilities
from harness.providers.target import ModelFigures, Target
from harness.routing.agent import (
    Agent,
    GrantKind,
    ModelChoice,
    literal_choice,
    parse_routed_choice,
)
from harness.routing.control import routes
from harness.routing.records.routes import Routing

MAX_PENDING_REQUESTS: Final = (
    4  # per session, so that an agent cannot flood people with requests
)
POLL_S: Final = 0.3
EXPIRED: Final = "no person decided in time"


def request_switch(
    ctx: AgentsContext,
    session: str,
    models: Sequence[ModelChoice],
    reason: str = "",
    tasks: Sequence[tuple[str, str]] = (),
) -> ModelSwitchRequest:
    """Asks a person to approve another model for the session, or models for its sub-tasks. If
    the same request is pending, returns that request.

    Args:
        reason: the agent's own words.
        tasks: task and model of each sub-task.

    Raises InputError if a model cannot continue the conversation.
    Raises NotAllowed for data that the model may not see, for a route that the key may not use,
    and for a model that a person rejected since the user's last message.
    Raises Conflict for a closed session, for its current model, and for too many requests.
    """
    with ctx.store.read() as tx:
        request = _prepare(ctx, tx, session, models, reason, tasks)
        name = Agents(tx).get(request.agent).name
    with ctx.store.write() as tx:
        # Until this transaction ends, other processes cannot add or decide requests, or close
        # the session.
        pending_requests = [r for r in _expire_overdue(ctx, tx) if r.session == session]
        agent_session = Sessions(tx).get(session)
        agent_session.require_open()
        if not tasks and models[0].means(agent_session.model):
            raise Conflict(
                f"the session is on {agent_session.model.text} already",
                code="same_model",
            )
        for other in pending_requests:
            if _is_same_request(other, request):
                return other
        if len(pending_requests) >= MAX_PENDING_REQUESTS:
            raise Conflict(
                f"{len(pending_requests)} requests of session {session} are already waiting "
                "for a person: wait for a decision",
                code="too_many_requests",
            )
        SwitchRequests(tx).add(request)
        raise_alert(
            tx,
            AlertKind.MODEL_SWITCH,
            request.id,
            subject=f"agent {request.agent}",
            title=switch_question(request, inert_text(name)),
            # Without the agent's words, because the alert outlives the transcript.
            text=f"Request {request.id} of session {request.session} waits until "
            f"{request.expires_at:%Y-%m-%d %H:%M} UTC; the session stays on its model until "
            "then.",
        )
    return request


def _prepare(
    ctx: AgentsContext,
    tx: Transaction,
    session: str,
    models: Sequence[ModelChoice],
    reason: str,
    tasks: Sequence[tuple[str, str]],
) -> ModelSwitchRequest:
    """Builds the request with its facts, and checks the models. Stores nothing. Raises as
    `request_switch`.
    """
    agent_session = Sessions(tx).get(session)
    agent = Agents(tx).get(agent_session.agent)
    messages = SessionMessages(tx).list(session)
    # Sub-tasks do not get the conversation.
    context = () if tasks else messages
    models = tuple(dict.fromkeys(models))
    targets_requested = [_find_requested_target(ctx, tx, agent, model) for model in models]
    _require_fit(ctx, tx, agent, context, targets_requested)
    providers = dict.fromkeys(target.provider for target in targets_requested)
    now = ctx.clock.now()
    request = ModelSwitchRequest(
        id=ctx.chance.token("sw_"),
        agent=agent.id,
        session=session,
        model_requested=", ".join(model.text for model in models),
        targets=tuple(dict.fromkeys(m.target for m in models if m.is_literal)),
        reason=visible_text(reason),
        for_children=bool(tasks),
        asked_at=now,
        expires_at=now + ctx.agents.switch_wait,
        facts=switch_facts(
            _load_current_figures(ctx, tx, agent_session.model),
            [
                load_figures(ctx, tx, target, "" if model.is_literal else model.text)
                for model, target in zip(models, targets_requested, strict=True)
            ],
            [omission for name in providers for omission in list_omissions(context, name)],
            tasks,
        ),
    )
    _require_not_rejected(tx, request, messages)
    return request


def _load_current_figures(
    ctx: AgentsContext,
    tx: Transaction,
    model: ModelChoice,
) -> ModelFigures:
    """Loads the figures of the session's model. For a route, loads the figures of its
    incumbent.
    """
    if model.is_literal:
        return load_figures(ctx, tx, Target.from_name(model.target))
    route = Routing(tx).route(model.route)
    if route is None:
        return ModelFigures(model.text)
    incumbent = Targets(tx).all()[route.incumbent]
    return load_figures(ctx, tx, incumbent, f"{model.text} ({incumbent.name})")


def _find_requested_target(
    ctx: AgentsContext,
    tx: Transaction,
    agent: Agent,
    model: ModelChoice,
) -> Target:
    """Finds the target that a request asks for. For a route, finds its incumbent.

    Raises NotAllowed for data that it may not see and for a route that the key may not use,
    NotFound.
    """
    if model.is_literal:
        target = Target.from_name(model.target)
        agents.check_target_data_class(ctx, agent.data_class, target)
        return target
    agents.owner_of(tx, agent).require_route(model.route)
    agents.require_route(ctx, tx, agent, model.route)
    return Targets(tx).all()[routes.require_route(tx, model.route).incumbent]


def _require_fit(
    ctx: AgentsContext,
    tx: Transaction,
    agent: Agent,
    messages: Sequence[SessionMessage],
    targets_requested: Sequence[Target],
) -> None:
    """Raises InputError, with all reasons, if a target cannot continue the conversation."""
    misfits: list[str] = []
    for target in targets_requested:
        capabilities = model_capabilities(ctx, targets.provider_of(tx, target), target.model)
        misfits += list_misfits(
            messages,
            capabilities,
            tools=bool(agent.tools),
            target=target.name,
        )
    if misfits:
        raise InputError(f"model: {'; '.join(misfits)}", code="model_unfit")


def _require_not_rejected(
    tx: Transaction,
    request: ModelSwitchRequest,
    messages: Sequence[SessionMessage],
) -> None:
    """Raises NotAllowed if a person rejected the same request since the user's last message."""
    user_message_times = [m.created_at for m in messages if m.role is MessageRole.USER]
    for other in SwitchRequests(tx).of_session(request.session):
        if other.state is not SwitchState.REJECTED or not _is_same_request(other, request):
            continue
        if not user_message_times or (
            other.decided_at and other.decided_at >= user_message_times[-1]
        ):
            raise NotAllowed(
                f"model: {other.decided_by} rejected the switch to "
                f"{request.model_requested}: continue with the session's model, or ask your "
                "user first",
                code="switch_rejected",
            )


def _is_same_request(first: ModelSwitchRequest, second: ModelSwitchRequest) -> bool:
    read_content = attrgetter("model_requested", "targets", "for_children")
    return bool(read_content(first) == read_content(second))


def load_switch(ctx: AgentsContext, id_: str) -> ModelSwitchRequest:
    with ctx.store.read() as tx:
        return SwitchRequests(tx).get(id_)


def approve_switch(
    ctx: AgentsContext,
    actor: Actor,
    id_: str,
    reason: str = "",
    *,
    fingerprint: str = "",
) -> ModelSwitchRequest:
    """Switches the session to the model from its next message on, or grants the sub-tasks their
    models.

    Args:
        fingerprint: the hash of the request that the approver saw; empty for no check.

    Raises NotAllowed below an approver, and for data that the model may not see.
    Raises InputError if the model cannot continue with the newest messages.
    Raises StaleWrite if the request has another hash.
    Raises Conflict for a request that is not pending, a closed session, and too many grants.
    Raises ConfigError without the control plane's signing key.
    """
    with _open_decision(ctx, actor, id_, fingerprint) as (tx, request):
        session = Sessions(tx).lock(request.session)
        session.require_open()
        agent = Agents(tx).get(request.agent)
        # Without the agent's words, because the grant outlives the transcript.
        kind = GrantKind.SWITCH
        grant_reason = f"switch request {id_} was approved"
        for target in request.targets:
            agents.grant_literal(
                ctx, tx, actor, agent, target, kind, grant_reason, request=request
            )
        decided = _decide(ctx, tx, actor, request, SwitchState.APPROVED, reason)
        if not request.for_children:
            model = _read_approved_model(tx, request)
            target_requested = _find_requested_target(ctx, tx, agent, model)
            _require_fit(
                ctx,
                tx,
                agent,
                SessionMessages(tx).list(session.id),
                [target_requested],
            )
            Sessions(tx).save(replace(session, model=model))
    return decided


def reject_switch(
    ctx: AgentsContext,
    actor: Actor,
    id_: str,
    reason: str = "",
    *,
    fingerprint: str = "",
) -> ModelSwitchRequest:
    """Rejects a request: the session keeps its model. Raises as `approve_switch`."""
    with _open_decision(ctx, actor, id_, fingerprint) as (tx, request):
        return _decide(ctx, tx, actor, request, SwitchState.REJECTED, reason)


@contextmanager
def _open_decision(
    ctx: AgentsContext,
    actor: Actor,
    id_: str,
    fingerprint: str,
) -> Iterator[tuple[Transaction, ModelSwitchRequest]]:
    """Opens the transaction in which a person decides a pending request."""
    actor.require(Role.APPROVER)
    expire_switches(ctx)
    with ctx.store.write() as tx:
        # Every transaction locks the decisions first, so that no two wait for each other.
        SwitchRequests(tx).pending()
        request = SwitchRequests(tx).get(id_)
        if fingerprint and fingerprint != request.hash:
            raise StaleWrite(
                f"the switch request {id_} has changed since you saw it: look at it again"
            )
        state = request.state_at(ctx.clock.now())
        if state is not SwitchState.PENDING:
            raise Conflict(f"the switch request {id_} is {state.value} already")
        yield tx, request


def expire_switches(ctx: AgentsContext) -> None:
    """Marks overdue requests as expired, in its own transaction. So a later refusal does not
    undo this, and a clock that is set back does not revive a request.
    """
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        if not any(now >= request.expires_at for request in SwitchRequests(tx).pending()):
            return
    with ctx.store.write() as tx:
        _expire_overdue(ctx, tx)


def _expire_overdue(ctx: AgentsContext, tx: Transaction) -> Sequence[ModelSwitchRequest]:
    """Expires overdue requests, and returns the pending requests. Until the transaction ends,
    other processes cannot decide these.
    """
    now = ctx.clock.now()
    pending = SwitchRequests(tx).pending()
    for request in pending:
        if now >= request.expires_at:
            # The decision gets the time of the expiry, not of now, so that `list_notes` reports
            # it only once.
            expired = request.end(SwitchState.EXPIRED, request.expires_at, EXPIRED)
            SwitchRequests(tx).decide(expired)
    return [request for request in pending if now < request.expires_at]


def _read_approved_model(tx: Transaction, request: ModelSwitchRequest) -> ModelChoice:
    """Reads the session's new model. Raises Conflict if the route was deleted since the
    request.
    """
    if request.targets:
        return literal_choice(request.targets[0], request.targets[0])
    route_choice = parse_routed_choice(
        request.model_requested, frozenset(Routing(tx).table().routes)
    )
    if route_choice is None:
        raise Conflict(
            f"the route {request.model_requested!r} does not exist: reject the request"
        )
    return route_choice


def _decide(
    ctx: AgentsContext,
    tx: Transaction,
    actor: Actor,
    request: ModelSwitchRequest,
    state: SwitchState,
    reason: str,
) -> ModelSwitchRequest:
    """Stores a person's decision and its audit event. Returns the decided request."""
    decided = request.end(state, ctx.clock.now(), visible_text(reason), actor)
    SwitchRequests(tx).decide(decided)
    details = {
        "request": request.id,
        "hash": request.hash,
        "session": request.session,
        "targets": list(request.targets),
        "reason": decided.decision_reason,
    }
    verb = "approve" if state is SwitchState.APPROVED else "reject"
    AuditLog(tx).append(actor, f"agent.switch_{verb}", f"agent {request.agent}", details)
    return decided


async def wait_for_decision(
    ctx: AgentsContext,
    id_: str,
    wait_s: float,
) -> ModelSwitchRequest:
    """Returns the request once it is decided; after `wait_s` seconds, returns it undecided."""
    until = ctx.clock.monotonic() + wait_s
    while True:
        request = await asyncio.to_thread(load_switch, ctx, id_)
        left_s = until - ctx.clock.monotonic()
        if request.state_at(ctx.clock.now()) is not SwitchState.PENDING or left_s <= 0:
            # Stores the expiry before the agent learns of it.
            await asyncio.to_thread(expire_switches, ctx)
            return request
        await asyncio.sleep(min(POLL_S, left_s))


@dataclass(frozen=True, slots=True)
class SwitchRequestView(ModelSwitchRequest):
    """A request in its current state, with its question and all facts."""

    question: str = ""
    fingerprint: str = ""  # hash, which the approver sends back with the decision


def view_switch(ctx: AgentsContext, request: ModelSwitchRequest) -> SwitchRequestView:
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        name = Agents(tx).get(request.agent).name
    lines = switch_lines(request, now)
    current = replace(
        request,
        state=request.state_at(now),
        facts=tuple({"name": title, "text": text} for title, text in lines),
    )
    return SwitchRequestView(
        **{field.name: getattr(current, field.name) for field in fields(ModelSwitchRequest)},
        question=switch_question(request, name),
        fingerprint=request.hash,
    )


def list_notes(
    ctx: AgentsContext,
    session: str,
    since: datetime,
) -> Sequence[str]:
    """Describes the decisions since that time about the session's requests, for its agent."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        requests = SwitchRequests(tx).of_session(session)
    return [
        text
        for request in reversed(requests)
        if (request.decided_at or request.expires_at) >= since
        and (text := decision_text(request, request.state_at(now)))
    ]
