"""What `switch_model` answers: the models there are, and what became of a request."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import AliasGenerator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from harness.control.agents import agents
from harness.control.agents.model_matching import list_models
from harness.control.context import Context
from harness.control.providers import provider_secrets
from harness.domain.agents.model_figures import ModelFigures
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState, decision_text

# A model pays for what it reads, in each further step.
MOST_MODELS: Final = 100


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

    @classmethod
    def from_figures(cls, figures: ModelFigures) -> "ListedModelAnswer":
        price = figures.price
        return cls(
            model=figures.name,
            input_usd_per_mtok=price.input_usd_per_mtok if price else None,
            output_usd_per_mtok=price.output_usd_per_mtok if price else None,
            context_window=figures.context_window,
            last_verdict=figures.verdict or None,
            routes=list(figures.routes),
            listed_on=figures.listed_on or None,
        )


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
        omissions=list(request.omissions),
        expires_at=request.expires_at,
    )


def list_for_session(ctx: Context, session: str, words: str) -> SwitchModelAnswer:
    with ctx.store.read() as tx:
        opened = agents.owner_of(tx, tx.agents.get(tx.sessions.get(session).agent)).routes
    return list_available(ctx, opened, words)


def list_available(ctx: Context, opened: frozenset[str], words: str) -> SwitchModelAnswer:
    """Lists the models of providers with a key, by provider, and the routes. opened: the routes
    that may be shown; empty for all. words: that the models' names must have.
    """
    found = list_models(ctx, words)
    with ctx.store.read() as tx:
        known = tx.routing.table().routes
        listed = {model.provider for model in tx.discovered_models.all()}
        usable = sorted(provider_secrets.find_usable(ctx, tx))
    of = {name: [one for one in found if one.name.startswith(f"{name}/")] for name in usable}
    counts = share_places([len(own) for own in of.values()], MOST_MODELS)
    providers, models = [], []
    for (name, own), shown in zip(of.items(), counts, strict=True):
        models += [ListedModelAnswer.from_figures(figures) for figures in own[:shown]]
        providers.append(
            ListedProviderAnswer(
                provider=name,
                models=len(own),
                shown=shown,
                note=_note(name, len(own), shown, has_list=name in listed),
            )
        )
    rest = len(found) - len(models)
    more = f"; {rest} more: give words of the name as `model`" if rest else ""
    return SwitchModelAnswer(
        status="listed",
        message=f"{len(found)} models of {len(usable)} providers{more}",
        routes=sorted(name for name in known if not opened or name in opened),
        providers=providers,
        models=models,
    )


def share_places(wanted: Sequence[int], places: int) -> list[int]:
    """Shares places so that each gets what it wants, or as many as every other that wants
    more.
    """
    given = [0] * len(wanted)
    for left, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        given[index] = min(wanted[index], (places - sum(given)) // (len(wanted) - left))
    return given


def _note(provider: str, models: int, shown: int, *, has_list: bool) -> str | None:
    if shown < models:
        return f"{models - shown} more: give {provider} and words of the name as `model`"
    if not has_list:
        return f"it was not asked for its own list: `swapgate model discover {provider}`"
    return None
