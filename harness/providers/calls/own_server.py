"""Reads the published endpoints of servers that you run yourself: health and context. Pure.

`harness.providers.registry.registered_providers` sends the requests and passes the replies. The
paths of each kind are in `harness.providers.kinds.OwnServer`. `probe` has the checks that all
providers share.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from harness.frame.errors import InputError
from harness.providers.calls.probe import (
    ProbeFinding,
    ProbeReply,
    ProbeStatus,
    ProbeSubject,
    is_listed,
)
from harness.providers.kinds import PROVIDER_KINDS, OwnServer
from harness.providers.models.model_match import (
    LARGEST_WINDOW,
    parse_listed_models,
)
from harness.providers.target import Provider, Target

_LOADING: Final = 503


class ServerReplies(NamedTuple):
    """The answers of one server. about: None if its kind has no such path."""

    server: OwnServer
    health: ProbeReply
    about: ProbeReply | None = None


def own_server(provider: Provider) -> OwnServer | None:
    """Returns the paths of a provider's kind; None for a kind that you do not run yourself."""
    kind = PROVIDER_KINDS.get(provider.kind)
    return kind.own_server if kind is not None else None


def at_server_root(provider: Provider) -> Provider:
    """Returns the provider with its server's root as its address, without `/v1`."""
    root = provider.api_base.rstrip("/").removesuffix("/v1")
    return replace(provider, api_base=root)


def server_findings(
    provider: Provider,
    target: Target | None,
    models: ProbeReply,
    replies: ServerReplies,
) -> Iterator[ProbeFinding]:
    """Yields findings about health and context.

    Args:
        models: the server's list of models.
    """
    server, health, about = replies
    yield _judge_health(server, health)
    if target is None:
        return
    window = _described_window(server, target, about) or _listed_window(
        provider, target, models
    )
    if window is not None:
        yield _compare_windows(provider, target, window)


def _judge_health(server: OwnServer, health: ProbeReply) -> ProbeFinding:
    """Judges the answer of the health endpoint."""
    subject = ProbeSubject.SERVER
    status = health.status
    if status == 200:
        return ProbeFinding(subject, ProbeStatus.OK, f"{server.health} says that it is ready")
    if status == _LOADING:
        step = "wait if it loads its model, else read the server's log"
        return ProbeFinding(subject, ProbeStatus.FAIL, health.error, step)
    if status is None or status >= 500:
        return ProbeFinding(subject, ProbeStatus.FAIL, health.error, "read the server's log")
    text = f"{server.health} answers {status}, so another server may stand before it"
    return ProbeFinding(subject, ProbeStatus.UNKNOWN, text)


def _compare_windows(
    provider: Provider,
    target: Target,
    window: int,
) -> ProbeFinding:
    """Compares the server's context window with the declared one.

    Args:
        window: tokens.

    Warns if the server's window is smaller, because the router would send requests that are too
    long.
    """
    subject = ProbeSubject.CONTEXT
    declared_window = provider.can(target.model).context_window
    text = f"{window:,} tokens for a request and its answer"
    if declared_window is None or declared_window <= window:
        return ProbeFinding(subject, ProbeStatus.OK, text)
    text = (
        f"{text}, but Swapproof expects {declared_window:,}: the server refuses longer requests"
    )
    step = (
        f"start the server with a larger context, or declare `context_window: {window}` for "
        f"{target.model} in the provider's `models`"
    )
    return ProbeFinding(subject, ProbeStatus.WARN, text, step)


def _described_window(
    server: OwnServer,
    target: Target,
    about: ProbeReply | None,
) -> int | None:
    """Reads the context window from the server's description; None without a plausible
    number.
    """
    try:
        value: Any = json.loads(about.content) if about is not None else None
    except (ValueError, RecursionError):
        return None
    for name in server.window:
        if isinstance(value, list):
            value = next((row for row in value if _names_model(row, target.model)), None)
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value if type(value) is int and 0 < value <= LARGEST_WINDOW else None


def _names_model(row: object, model: str) -> bool:
    return isinstance(row, Mapping) and is_listed(model, (row.get("name"),))


def _listed_window(
    provider: Provider,
    target: Target,
    models: ProbeReply,
) -> int | None:
    """Reads the context window from the server's list of models; None without one."""
    try:
        parsed = parse_listed_models(models.content, provider, datetime.min.replace(tzinfo=UTC))
    except InputError:
        return None
    windows = {model.model: model.context_window for model in parsed.models}
    return windows.get(target.model)
