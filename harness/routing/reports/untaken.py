"""Describes the part of a route's recent requests that a candidate cannot take.

The router records features that only an endpoint's own provider supports, and the needs of a
sample of requests (`router.observers.needs_sample`). This module compares them with the
candidate's abilities, for `proposal create`, the API and the dashboard.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from harness.frame.formatting import format_percent
from harness.frame.records.transaction import Transaction
from harness.gate.online.observation import NEED, AskedName
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import (
    Capabilities,
    Endpoint,
    Needs,
    missing_capabilities,
    restrict_endpoints,
)
from harness.providers.records import Providers
from harness.providers.target import Target
from harness.routing.records.observations import Observations
from harness.routing.reports.traffic_report import name_period

WINDOW: Final = timedelta(days=7)
_VERBS: Final[Mapping[str, str]] = {
    "stream": "stream their answer",
    "tools": "have tools",
    "parallel_tools": "ask for parallel tool calls",
    "json_schema": "ask for a JSON schema",
    "vision": "have pictures",
    "documents": "have documents",
    "audio": "have sound",
    "several_choices": "ask for several answers at once",
    "prefill": "prefill their answer",
    "new_answer": "ask for a further answer after an answer",
}


def list_untaken(
    tx: Transaction,
    route: str,
    incumbent: Target,
    candidate: Target,
    now: datetime,
) -> Sequence[str]:
    """Describes the requests of the last 7 days that the candidate cannot take.

    Omits an ability that the incumbent lacks too, because its absence is no loss.
    """
    since = (now - WINDOW + timedelta(days=1)).date()
    names = Observations(tx).asked_names(since=since, route=route)
    candidate_abilities = find_abilities(tx, candidate)
    incumbent_missing = _missing_needs(find_abilities(tx, incumbent))
    lost_needs = [
        need for need in _missing_needs(candidate_abilities) if need not in incumbent_missing
    ]
    return (
        *_describe_features(tx, route, candidate, candidate_abilities, names, now),
        *_describe_lost(route, candidate_abilities, lost_needs, names),
    )


def count_needs(names: Sequence[AskedName]) -> Counter[str]:
    """Counts a sample's requests by need; under "", all requests of the sample."""
    counts: Counter[str] = Counter()
    for row in names:
        if row.name.startswith(NEED):
            counts[row.name.removeprefix(NEED)] += row.requests
    return counts


def find_abilities(tx: Transaction, target: Target) -> Capabilities:
    """Returns a target's abilities as routers compare them with a request's needs."""
    provider = Providers(tx).all()[target.provider]
    kind = PROVIDER_KINDS[provider.kind]
    declared = provider.abilities(target.model)
    return restrict_endpoints(declared, kind.serves_of(declared), kind.translates(declared))


def _missing_needs(abilities: Capabilities) -> Mapping[str, str]:
    """Returns the needs that a model cannot meet, each with the ability that it lacks."""
    missing: dict[str, str] = {}
    for endpoint in Endpoint:
        if words := missing_capabilities(Needs(endpoint), abilities):
            missing[endpoint.value] = words[0]
    served = next((endpoint for endpoint in Endpoint if endpoint.value not in missing), None)
    if served is None:
        return missing
    for name in _NEEDS:
        need: dict[str, Any] = {name: True}
        if words := missing_capabilities(Needs(served, **need), abilities):
            missing[name] = words[0]
    return missing


_NEEDS: Final = tuple(
    name for name, need in Needs.__dataclass_fields__.items() if isinstance(need.default, bool)
)


def _describe_lost(
    route: str,
    can: Capabilities,
    lost_needs: Sequence[str],
    names: Sequence[AskedName],
) -> list[str]:
    """Writes a sentence for each lost ability that requests need, the most frequent first."""
    missing = _missing_needs(can)
    counts = count_needs(names)
    period = name_period(WINDOW)
    if not counts[""]:
        abilities = ", ".join(missing[need] for need in lost_needs if need not in _ENDPOINTS)
        sentence = (
            f"the candidate has no {abilities}; which part of {route}'s requests needs it is "
            f"unknown, because no router recorded needs in {period}"
        )
        return [sentence] if abilities else []
    return [
        f"{format_percent(counts[need] / counts[''], significant=2)} of {route}'s requests of "
        f"{period} {_verb_phrase(need)}; the candidate has no {missing[need]}"
        for need in sorted(lost_needs, key=lambda need: -counts[need])
        if counts[need]
    ]


_ENDPOINTS: Final = frozenset(endpoint.value for endpoint in Endpoint)


def _verb_phrase(need: str) -> str:
    if need in _ENDPOINTS:
        return f"call the endpoint {need}"
    return _VERBS.get(need, f"need {need.replace('_', ' ')}")


def _describe_features(
    tx: Transaction,
    route: str,
    candidate: Target,
    abilities: Capabilities,
    names: Sequence[AskedName],
    now: datetime,
) -> list[str]:
    """Describes requests with features that need an endpoint which the candidate does not
    serve itself.
    """
    kind = PROVIDER_KINDS[Providers(tx).all()[candidate.provider].kind]
    native = kind.serves_of(abilities) - kind.translates(abilities)
    counts: Counter[str] = Counter()
    for day in names:
        endpoint, _, feature = day.name.partition(":")
        if not day.name.startswith(NEED) and endpoint not in native:
            counts[feature] += day.requests
    if not counts:
        return []
    since = now - WINDOW
    requests = sum(
        total.requests for total in Observations(tx).totals(since=since, route=route)
    )
    return [
        f"{format_percent(min(1.0, number / requests), significant=2)} of {route}'s requests "
        f"of {name_period(WINDOW)} used {feature}: this candidate cannot take them"
        for feature, number in counts.most_common()
        if requests
    ]
