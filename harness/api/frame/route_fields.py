"""Fields of requests about routes: a new route and its settings, its chain, the way back, and
what people set over it.
"""

# ruff: noqa: RUF012 - pydantic copies a default for each request

from dataclasses import replace
from datetime import timedelta
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from harness.api.frame.request_fields import Body, Count, Name, Text
from harness.control.routing.chain_evidence import WaiverRequest
from harness.control.routing.fallback_chain import FallbackRequest
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.privacy.capture import MAX_KEEP_DAYS, MAX_PER_DAY
from harness.domain.routing.keep_warm import MAX_KEEP_WARM_BPS
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.table import (
    BUCKETS,
    ROUTE_TIMEOUTS,
    OnBadEvent,
    OnContentPolicy,
    OnEmptyAnswer,
    RouteSettings,
    RouteSuite,
    Stakes,
    StreamCommit,
)


class SuiteBody(Body):
    suite: Name
    role: SuiteRole = SuiteRole.PRIMARY
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class FallbackBody(Body):
    """Names a fallback of a route. target: an id or `provider/model`. capable: good enough for
    a route of high stakes.
    """

    target: Name
    capable: bool = False


class RouteFields(Body):
    """Carries the settings of a route. A field that is left out stays as it is; of a new route
    it is the default. overrides: all of them, by kind; {} for none. keep_warm_bps: 1 % is 100.

    first_token_timeout_s, first_byte_timeout_s: 0 for what holds without one.
    """

    suites: Annotated[list[SuiteBody], Field(max_length=20)] | None = None
    description: Text | None = None
    stakes: Stakes | None = None
    policy: Name | None = None
    total_timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    on_content_policy: OnContentPolicy | None = None
    keep_warm_bps: Annotated[int, Field(ge=0, le=MAX_KEEP_WARM_BPS)] | None = None
    side_effects: bool | None = None
    data_class: Annotated[str, Field(max_length=200)] | None = None
    task: Annotated[str, Field(max_length=200)] | None = None
    capture_bps: Annotated[int, Field(ge=0, le=BUCKETS)] | None = None
    capture_per_day: Annotated[int, Field(ge=1, le=MAX_PER_DAY)] | None = None
    capture_keep_days: Annotated[float, Field(gt=0, le=MAX_KEEP_DAYS)] | None = None
    overrides: dict[RequestKind, Name] | None = None
    first_token_timeout_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    first_byte_timeout_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    commit: StreamCommit | None = None
    on_bad_event: OnBadEvent | None = None
    on_empty_answer: OnEmptyAnswer | None = None

    def over(self, before: RouteSettings) -> RouteSettings:
        given = ((name, getattr(self, name)) for name in RouteFields.model_fields)
        changed = {name: value for name, value in given if value is not None}
        if self.suites is not None:
            chosen = ((body.suite, body.role, body.weight) for body in self.suites)
            changed["suites"] = tuple(RouteSuite(*suite) for suite in chosen)
        changed |= {name: changed[name] or None for name in ROUTE_TIMEOUTS if name in changed}
        return replace(before, **changed)


class SettingsBody(RouteFields):
    """Changes the settings of a route. reason: another policy needs one."""

    reason: Text | None = None


class RouteBody(RouteFields):
    """Describes a new route. incumbent, fallbacks: ids or `provider/model`."""

    name: Name
    incumbent: Name
    fallbacks: Annotated[list[Name | FallbackBody], Field(max_length=20)] = []

    @property
    def chain(self) -> list[FallbackBody]:
        return [
            FallbackBody(target=fallback) if isinstance(fallback, str) else fallback
            for fallback in self.fallbacks
        ]


class WaiverBody(Body):
    """Waives the proof of a target. for_s: how long it holds, up to 90 days."""

    reason: Text
    for_s: Annotated[float, Field(gt=0, le=7_776_000)]


class LinkBody(FallbackBody):
    """Adds a fallback to a route's chain. waiver: for a target without a verdict of this
    route.
    """

    waiver: WaiverBody | None = None

    @property
    def wanted(self) -> FallbackRequest:
        waiver = self.waiver
        waive = (
            WaiverRequest(waiver.reason, timedelta(seconds=waiver.for_s)) if waiver else None
        )
        return FallbackRequest(self.target, self.capable, waive)


class ChainBody(Body):
    """Describes the whole chain, in order."""

    fallbacks: Annotated[list[LinkBody], Field(max_length=20)]
    reason: Text


class RollbackBody(Body):
    """Asks for a route's way back to a former incumbent. to_version: of the route; without it,
    the incumbent before this one. version: of the route that the person looked at; another one
    by now is refused.
    """

    reason: Text
    to_version: Count | None = None
    expected_version: Annotated[Count | None, Field(alias="version")] = None


class SwitchBody(Body):
    """Describes a kill switch to throw. force: `provider:NAME` or `target:ID`. route: None for
    all. for_s: None until lifted.
    """

    force: Name
    reason: Text
    route: Name | None = None
    for_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None


class FreezeBody(Body):
    """Describes a freeze to set. route: None for all. starts_at: None for now."""

    reason: Text
    ends_at: AwareDatetime
    starts_at: AwareDatetime | None = None
    route: Name | None = None


class BreakGlassBody(Body):
    """Asks that a target serve a route without proof. target: id or provider/model.
    through_freeze: also while the route is frozen.
    """

    route: Name
    target: Name
    reason: Text
    for_s: Annotated[float, Field(gt=0, le=604_800)]
    through_freeze: bool = False


class VersionsQuery(Body):
    """Names two versions of a route. Without `to` the newer one is the newest, without `from`
    the older one is the version before it.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    older: Annotated[Count | None, Field(alias="from")] = None
    newer: Annotated[Count | None, Field(alias="to")] = None
