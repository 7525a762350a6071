"""A switch request as its readers see it: a person in an alert, by command line and REST, and
the agent that asked, by the answer of `switch_model` and by notes before its next turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from pydantic import AliasGenerator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from harness.control.context import Context
from harness.domain.agents.switch_request import (
    AGENTS_WORDS,
    LEFT_OUT,
    ModelSwitchRequest,
    SwitchState,
    decision_text,
    inert_text,
    switch_lines,
    switch_question,
)
from harness.domain.errors import NotFound
from harness.domain.operations.alert_record import AlertRecord, Notified
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.delivery import AlertMessage
from harness.store.sql.agents import Agents, SwitchRequests


def with_question(ctx: Context, record: AlertRecord, message: AlertMessage) -> AlertMessage:
    """Adds the question, and the link to decide it, to the message of a switch that still
    waits. The stored alert has neither: it is kept longer than a transcript.
    """
    if record.kind is not AlertKind.MODEL_SWITCH or message.state is not Notified.RAISED:
        return message
    now = ctx.clock.now()
    try:
        with ctx.store.read() as tx:
            request = SwitchRequests(tx).get(record.key.partition(":")[2])
    except NotFound:
        return message
    if request.state_at(now) is not SwitchState.PENDING:
        return message
    text = [message.text]
    text += [
        f"{title}: {inert_text(value) if title in AGENTS_WORDS else value}"
        for title, value in switch_lines(request, now)
    ]
    if ctx.approval_links is not None:
        text.append(f"Decide: {ctx.approval_links.link(request)}")
    return replace(message, text="\n".join(text))


@dataclass(frozen=True, slots=True)
class SwitchRequestView(ModelSwitchRequest):
    """A request with its question, in the state that it has now, and with all facts."""

    question: str = ""
    fingerprint: str = ""  # an approver sends it back: another request has another


def view_switch(ctx: Context, request: ModelSwitchRequest) -> SwitchRequestView:
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        name = Agents(tx).get(request.agent).name
    lines = switch_lines(request, now)
    shown = replace(
        request,
        state=request.state_at(now),
        facts=tuple({"name": title, "text": text} for title, text in lines),
    )
    return SwitchRequestView(
        **{field.name: getattr(shown, field.name) for field in fields(ModelSwitchRequest)},
        question=switch_question(request, name),
        fingerprint=request.hash,
    )


def list_notes(ctx: Context, session: str, since: datetime) -> Sequence[str]:
    """What became of the session's requests since that time, a sentence each, for its agent."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        known = SwitchRequests(tx).of_session(session)
    return [
        text
        for request in reversed(known)
        if (request.decided_at or request.expires_at) >= since
        and (text := decision_text(request, request.state_at(now)))
    ]


class SwitchToolAnswer(BaseModel):
    model_config = ConfigDict(
        alias_generator=AliasGenerator(serialization_alias=to_camel), frozen=True
    )


class ListedModelAnswer(SwitchToolAnswer):
    """A model of a provider with a key. Prices are per million tokens, null where not known.
    listed_on: the day on which its provider listed it itself.
    """

    model: str
    input_usd_per_mtok: float | None
    output_usd_per_mtok: float | None
    context_window: int | None
    last_verdict: str | None
    routes: list[str]
    listed_on: str | None


class ListedProviderAnswer(SwitchToolAnswer):
    """A provider with a key. models: how many fit; shown: how many of them are in the answer.
    note: why there may be more.
    """

    provider: str
    models: int
    shown: int
    note: str | None


class SwitchModelAnswer(SwitchToolAnswer):
    """Says what a call of the switch tool led to. status: `listed` with routes, providers and
    models; `question` with the candidates that the name may mean; else what became of the
    request so far: `pending`, `approved`, `rejected`, `expired` or `cancelled`. omissions:
    what the model will not be shown.
    """

    status: str
    message: str
    request: str | None = None
    model: str | None = None
    omissions: list[str] = []
    expires_at: datetime | None = None
    candidates: list[str] = []
    routes: list[str] = []
    providers: list[ListedProviderAnswer] = []
    models: list[ListedModelAnswer] = []


def switch_answer(ctx: Context, request: ModelSwitchRequest) -> SwitchModelAnswer:
    state = request.state_at(ctx.clock.now())
    message = decision_text(request, state)
    if state is SwitchState.PENDING:
        message = (
            f"A person decides until {request.expires_at:%Y-%m-%d %H:%M} UTC. Until then the "
            "session stays on its model: go on with it."
        )
    return SwitchModelAnswer(
        status=state.value,
        message=message,
        request=request.id,
        model=request.wanted,
        omissions=[fact["text"] for fact in request.facts if fact["name"] == LEFT_OUT],
        expires_at=request.expires_at,
    )
