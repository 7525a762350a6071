"""Uses LiteLLM's admin API. The deployments of a model group are a route's targets.

A deployment's `weight` is its share. If the share is 0, Swapproof also sets `blocked`, because
LiteLLM uses a deployment of weight 0 if no other deployment is left. Swapproof reads the share
of a deployment that is not blocked as at least 1 basis point. `drive` decides about the calls
and the split.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from harness.app.gateways.litellm_api import LiteLLMApi
from harness.canary.split import DrivenTargets, Outcome, Split
from harness.frame.errors import UpstreamError
from harness.frame.failures import FailureClass, name_failure
from harness.providers.target import Target
from harness.routing.table import BUCKETS

# The error statuses that a caller's mistake causes. Other error statuses count against the
# deployment.
CALLER_FAULT_STATUSES: Final = frozenset({"400", "413", "422"})
TARGET_FIELD: Final = "swapproof_target"  # in `model_info`, if its model has another name
FAILED_FIELD: Final = "swapproof_failed"  # in `spend_logs_metadata`, from our callback
MAX_WEIGHT: Final = 1e9  # the greatest weight that we read; LiteLLM accepts larger weights
_UNREADABLE: Final = (AttributeError, LookupError, TypeError, ValueError)


class Deployment(NamedTuple):
    id: str
    group: str
    names: tuple[str, ...]  # of its target or its model
    weight: float
    blocked: bool
    stored: bool  # whether it is in LiteLLM's database, where its weight can change


class LiteLLMAdmin:
    """A `SplitDriver`. key: LiteLLM's master key, which no message contains."""

    def __init__(
        self,
        url: str,
        key: str,
        allowed: Collection[str] = (),
    ) -> None:
        self._api = LiteLLMApi(url, key, allowed)
        self._deployments: Sequence[Deployment] = ()

    def begin_look(self) -> None:
        """Reads the deployments, which the other methods use until the next call. Raises
        UpstreamError.
        """
        try:
            entries = self._api.call("/v1/model/info")["data"]
            self._deployments = [_read_deployment(entry) for entry in entries]
        except _UNREADABLE as error:
            raise UpstreamError(f"LiteLLM's list of models is unreadable: {error!r}") from None

    def read_split(self, route: str, targets: Collection[Target]) -> Split:
        """Returns the shares by target, in basis points; empty if LiteLLM has no such group."""
        group = [d for d in self._deployments if d.group == route]
        routable = [d for d in group if not d.blocked]
        split = {_find_target(deployment, targets): 0.0 for deployment in group}
        for deployment in routable:
            # LiteLLM shares equally among deployments without a weight.
            is_equal = not any(d.weight for d in routable)
            split[_find_target(deployment, targets)] += 1.0 if is_equal else deployment.weight
        total_weight = sum(split.values()) or 1.0
        reachable_targets = {_find_target(deployment, targets) for deployment in routable}
        return {
            name: max(round(part / total_weight * BUCKETS), int(name in reachable_targets))
            for name, part in split.items()
        }

    def set_split(
        self,
        route: str,
        targets: Collection[Target],
        split: Split,
    ) -> None:
        """Sets the weights of the route's deployments. Deployments of one target share its
        weight equally.

        Raises UpstreamError if a target has no deployment, or if a weight cannot change.
        """
        group = [d for d in self._deployments if d.group == route]
        by_target: dict[str, list[Deployment]] = {}
        for deployment in group:
            by_target.setdefault(_find_target(deployment, targets), []).append(deployment)
        names = {target.id: target.name for target in targets}
        for target in split:
            if target not in by_target:
                raise UpstreamError(
                    f"LiteLLM's model group {route!r} has no deployment of {names[target]}: "
                    "add it on LiteLLM's page Models or by POST /model/new, with "
                    f"`model_info: {{{TARGET_FIELD}: NAME}}` if its model has another name"
                )
        for deployment in group:
            if not deployment.stored:
                raise UpstreamError(
                    f"LiteLLM reads a deployment of {route!r} from its configuration file, so "
                    "its weight cannot change: add it by POST /model/new instead, with "
                    "`store_model_in_db: true`"
                )
        # Sets the largest share first and 0 last. So the group is never empty, and a model
        # never has more than the larger of its old and new shares.
        for target in sorted(by_target, key=lambda target: -split.get(target, 0)):
            weight = split.get(target, 0) / len(by_target[target])
            for deployment in by_target[target]:
                body = {
                    "litellm_params": {"weight": weight},
                    "blocked": not weight,
                }
                self._api.call(
                    f"/model/{quote(deployment.id)}/update",
                    body,
                    method="PATCH",
                )

    def read_outcomes(self, since: datetime, driven: DrivenTargets) -> Iterator[Outcome]:
        """Yields the outcomes of the driven routes' requests that began since that time.

        Raises UpstreamError after the readable rows, if a row is unreadable.
        """
        deployments = [d for d in self._deployments if d.group in driven]
        target_by_deployment = {d.id: _find_target(d, driven[d.group]) for d in deployments}
        fault: Exception | None = None
        for row in self._read_rows(since):
            try:
                outcome = read_row(row, target_by_deployment)
            except _UNREADABLE as error:
                fault = error  # reported after the readable rows
                continue
            if outcome is not None and outcome.route in driven:
                yield outcome
        if fault is not None:
            raise UpstreamError(f"a row of LiteLLM's logs is unreadable: {fault!r}")

    def _read_rows(self, since: datetime) -> Iterator[Mapping[str, Any]]:
        for page in self._api.read_spend_logs(since):
            yield from page.rows


def _read_deployment(entry: Mapping[str, Any]) -> Deployment:
    params = entry["litellm_params"]
    info = entry["model_info"]
    model = str(params["model"])
    target_name = info.get(TARGET_FIELD)
    return Deployment(
        str(info["id"]),
        entry["model_name"],
        names=(str(target_name),) if target_name else (model, model.partition("/")[2]),
        # `max` returns its first argument for NaN, so this turns NaN into 0.0, too.
        weight=min(max(0.0, float(params.get("weight") or 0.0)), MAX_WEIGHT),
        blocked=info.get("blocked") is True,
        stored=info.get("db_model") is True,
    )


def _find_target(deployment: Deployment, targets: Collection[Target]) -> str:
    """Returns the id of the deployment's target; otherwise the deployment's own name."""
    for name in deployment.names:
        for target in targets:
            if name in (target.name, target.model):
                return target.id
    return f"{deployment.names[0]} (deployment {deployment.id[:8]})"


def read_row(row: Mapping[str, Any], target_by_deployment: Mapping[str, str]) -> Outcome | None:
    """Reads a row of the spend logs. Returns None for a request that reached no deployment of
    our routes.

    After a retry or a fallback, LiteLLM's row names only the deployment that answered. Our
    callback adds the deployment that failed first.

    Args:
        target_by_deployment: maps a deployment's id to its target.
    """
    metadata = row.get("metadata") or {}
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    was_repeated = bool(
        metadata.get("attempted_retries") or metadata.get("attempted_fallbacks")
    )
    is_failure = row.get("status") == "failure"
    code = str((metadata.get("error_information") or {}).get("error_code") or "")
    failed_deployment = (metadata.get("spend_logs_metadata") or {}).get(FAILED_FIELD)
    first_deployment = failed_deployment if was_repeated else row.get("model_id")
    if row.get("cache_hit") == "True" or (
        first_deployment not in target_by_deployment and (first_deployment or not was_repeated)
    ):
        return None
    started_at = _parse_time(row["startTime"])
    ended_at = _parse_time(row["endTime"])
    failed = was_repeated or (is_failure and code not in CALLER_FAULT_STATUSES)
    return Outcome(
        id=str(row["request_id"]),
        route=str(metadata.get("original_model_group") or row.get("model_group")),
        caller=str(row.get("session_id") or row["request_id"]),
        target=target_by_deployment.get(str(first_deployment)),
        started_at=started_at,
        failed=failed,
        answered=not is_failure,
        why=name_failure(FailureClass.SERVER, code) if failed else "",
        latency_s=(ended_at - started_at).total_seconds(),
        input_tokens=int(row.get("prompt_tokens") or 0),
        output_tokens=int(row.get("completion_tokens") or 0),
    )


def _parse_time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
