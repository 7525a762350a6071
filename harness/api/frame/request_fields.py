"""Pydantic models of the management API's request bodies and query parameters, and how they
become domain requests. An unknown field is an error, and so is NaN.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from harness.control.proposals.submission import MOST_CANDIDATES, ProposalRequest
from harness.control.routing.chain_evidence import WaiverRequest
from harness.control.routing.fallback_chain import FallbackRequest
from harness.domain.evals.run import RunState
from harness.domain.evals.suite_plan import Claim, SuiteRole
from harness.domain.operations.access import OptOut
from harness.domain.operations.audit import AuditFilter
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.privacy.capture import MAX_KEEP_DAYS, MAX_PER_DAY
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.routing.keep_warm import MAX_KEEP_WARM_BPS
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.table import (
    BUCKETS,
    ROUTE_TIMEOUTS,
    OnBadEvent,
    OnContentPolicy,
    RouteSettings,
    RouteSuite,
    Stakes,
    StreamCommit,
)
from harness.domain.routing.target import RequestPatch
from harness.domain.settings import TargetSeed

Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Json = dict[str, JsonValue]
Cursor = Annotated[str, Field(min_length=1, max_length=1000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    def request_fingerprint(self) -> str:
        """Identifies the body of a request for its `Idempotency-Key`: the same body gives the
        same text.
        """
        return self.model_dump_json()


class PageQuery(Body):
    """Asks for a page of a list. after: the `next` of the page before. offset: rows to leave
    out, as before there was `after`; it takes longer, and rows that are added meanwhile shift
    it.
    """

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 100
    after: Cursor | None = None
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @property
    def page(self) -> PageRequest:
        return PageRequest(self.limit, self.after, self.offset)


class OverviewQuery(PageQuery):
    """Asks for a page of routes, each with what goes on there."""

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 50


class NameQuery(Body):
    """Asks about one model. name: of a model, as anybody may write it."""

    name: Name


class PatchBody(Body):
    """What is changed in a client's request before it goes to this model."""

    parameters: Json = {}
    prompt_addendum: Text = ""
    response_format: Json | None = None


class ModelBody(Body):
    provider: Name
    model: Name
    parameters: Json = {}
    request_patch: PatchBody = PatchBody()
    discover: bool = True  # whether to ask the provider which models it has

    def seed(self) -> TargetSeed:
        patch = self.request_patch
        return TargetSeed(
            self.provider,
            self.model,
            self.parameters,
            RequestPatch(patch.parameters, patch.prompt_addendum, patch.response_format),
        )


class SuiteBody(Body):
    suite: Name
    role: SuiteRole = SuiteRole.PRIMARY
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0

    def suite_of_route(self) -> RouteSuite:
        return RouteSuite(self.suite, self.role, self.weight)


class FallbackBody(Body):
    """Names a fallback of a route. target: an id or `provider/model`. capable: good enough for
    a route of high stakes.
    """

    target: Name
    capable: bool = False


class RouteBody(Body):
    """Describes a new route. incumbent, fallbacks: ids or `provider/model`. keep_warm_bps: 1 %
    is 100.

    overrides: routes that answer some kinds of requests.
    """

    name: Name
    incumbent: Name
    fallbacks: Annotated[list[Name | FallbackBody], Field(max_length=20)] = []
    suites: Annotated[list[SuiteBody], Field(max_length=20)] = []
    description: Text = ""
    stakes: Stakes = Stakes.LOW
    policy: Name = "default"
    total_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    on_content_policy: OnContentPolicy = OnContentPolicy.FAIL
    keep_warm_bps: Annotated[int, Field(ge=0, le=MAX_KEEP_WARM_BPS)] = 0
    side_effects: bool = False
    data_class: Annotated[str, Field(max_length=200)] = ""
    task: Annotated[str, Field(max_length=200)] = ""
    capture_bps: Annotated[int, Field(ge=0, le=BUCKETS)] = 0
    capture_per_day: Annotated[int, Field(ge=1, le=MAX_PER_DAY)] = 200
    capture_keep_days: Annotated[float, Field(gt=0, le=MAX_KEEP_DAYS)] = 30.0
    overrides: dict[RequestKind, Name] = {}
    first_token_timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    first_byte_timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    commit: StreamCommit = StreamCommit.FIRST_TOKEN
    on_bad_event: OnBadEvent = OnBadEvent.FAIL

    @property
    def chain(self) -> list[FallbackBody]:
        return [
            FallbackBody(target=fallback) if isinstance(fallback, str) else fallback
            for fallback in self.fallbacks
        ]

    def settings(self) -> RouteSettings:
        return RouteSettings(
            description=self.description,
            stakes=self.stakes,
            policy=self.policy,
            suites=tuple(suite.suite_of_route() for suite in self.suites),
            total_timeout_s=self.total_timeout_s,
            on_content_policy=self.on_content_policy,
            keep_warm_bps=self.keep_warm_bps,
            side_effects=self.side_effects,
            data_class=self.data_class,
            task=self.task,
            capture_bps=self.capture_bps,
            capture_per_day=self.capture_per_day,
            capture_keep_days=self.capture_keep_days,
            overrides=self.overrides,
            first_token_timeout_s=self.first_token_timeout_s,
            first_byte_timeout_s=self.first_byte_timeout_s,
            commit=self.commit,
            on_bad_event=self.on_bad_event,
        )


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


class SettingsBody(Body):
    """What is left out stays as it is. overrides: all of them, by kind; {} for none.

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

    def over(self, before: RouteSettings) -> RouteSettings:
        found = {name: getattr(self, name) for name in type(self).model_fields}
        changed = {name: value for name, value in found.items() if value is not None}
        if self.suites is not None:
            changed["suites"] = tuple(suite.suite_of_route() for suite in self.suites)
        changed |= {name: changed[name] or None for name in ROUTE_TIMEOUTS if name in changed}
        return replace(before, **changed)


class RollbackBody(Body):
    """Asks for a route's way back to a former incumbent. to_version: of the route; without it,
    the incumbent before this one. version: of the route that the person looked at; another one
    by now is refused.
    """

    reason: Text
    to_version: Count | None = None
    version: Count | None = None


class EvalBody(Body):
    """Asks for an eval run. target: an id or `provider/model`. items: None for the whole suite.

    max_tokens, max_cost_usd: where the run ends; None for no limit.
    """

    suite: Name
    target: Name
    items: Count | None = None
    max_tokens: Count | None = None
    max_cost_usd: float | None = None


class ProposalBody(Body):
    """Proposes a swap. candidate: an id or `provider/model`. claim, margin, policy: None for
    the route's.

    min_saving: of the claim cheaper_and_not_worse, a share of 1; None for the policy's.
    rivals: other candidates for the same swap; the best of those that pass goes on.
    change_reference: of the change request in the team's own system.
    """

    route: Name
    candidate: Name
    reason: Text = ""
    claim: Claim | None = None
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    policy: Name | None = None
    descends_from: Name | None = None
    min_saving: Annotated[float, Field(gt=0, lt=1)] | None = None
    rivals: Annotated[tuple[Name, ...], Field(max_length=MOST_CANDIDATES - 1)] = ()
    change_reference: Name | None = None

    def to_request(self) -> ProposalRequest:
        return ProposalRequest(
            self.route,
            self.candidate,
            self.reason,
            self.claim,
            self.margin,
            self.policy,
            self.descends_from,
            self.min_saving,
            self.rivals,
            self.change_reference or "",
        )


class ApprovalBody(Body):
    """Approves a proposal. verdict: the one that the approver saw; refused when it is another
    by now. change_reference: of the change request, where the proposal names none.
    """

    reason: Text = ""
    verdict: Name | None = None
    change_reference: Name | None = None


class ReasonBody(Body):
    reason: Text = ""


class SwitchDecisionBody(Body):
    """Decides a switch request. fingerprint: of the request that was looked at; refused when it
    is another.
    """

    reason: Text = ""
    fingerprint: Annotated[str, Field(max_length=200)] = ""


class OverruleBody(Body):
    """Carries the reason for an act that is refused without one."""

    reason: Text


class DriftRunBody(Body):
    """Asks for a run of drift watches. suite: None for all that watch the route."""

    suite: Name | None = None


class DriftAcceptBody(DriftRunBody):
    reason: Text


class DriftQuery(PageQuery):
    route: Name | None = None


class CanaryOperationBody(Body):
    """Asks for an act on a canary. version: of the rollout that the person looked at; another
    one is a conflict.
    """

    reason: Text
    version: int | None = None


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


class ShadowBody(Body):
    """Describes a shadow to start. candidate: id or provider/model. Budgets: of a day (UTC).
    usd_per_day: None for none.
    """

    candidate: Name
    reason: Text
    share_bps: Annotated[int, Field(ge=1, le=10_000)] = 100
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    requests_per_day: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    usd_per_day: Annotated[float, Field(gt=0, lt=1e9)] | None = 1.0
    for_s: Annotated[float, Field(gt=0, le=7_776_000)] = 604_800.0


class ShadowQuery(PageQuery):
    route: Name | None = None


Rate = Annotated[float, Field(ge=1, le=1e12)]
Dollars = Annotated[float, Field(ge=0, lt=1e12)]


class LimitsBody(Body):
    """Carries the limits of a data key; a field that is left out sets no limit. warn_share: the
    share of a budget at which people are warned.
    """

    requests_per_min: Rate | None = None
    tokens_per_min: Rate | None = None
    budget_day_usd: Dollars | None = None
    budget_month_usd: Dollars | None = None
    warn_share: Annotated[float, Field(gt=0, le=1)] = 0.8

    def limits(self) -> KeyLimits:
        return KeyLimits(**self.model_dump())


class KeyBody(Body):
    """Describes a key to create. role: None for a data key. routes: that the data key opens;
    empty means all.

    principal: whose management key it is, by name; None for a new person of the key's name, or
    a service. opt_outs: what the data key's requests are kept out of. project: whose routes the
    key is for; None for those of who asks.
    """

    name: Name
    principal: Name | None = None
    service: bool = False
    role: Literal["viewer", "proposer", "approver", "admin"] | None = None
    routes: Annotated[list[Name], Field(max_length=1000)] = []
    limits: LimitsBody | None = None
    opt_outs: set[OptOut] = set()
    project: Name | None = None


class OptOutsBody(Body):
    """Carries what a data key opts out of, as a whole."""

    opt_outs: set[OptOut]


class DeclarationBody(Body):
    """Declares who a principal is. person: the name of the principal that he is as well; None
    for nobody else here.
    """

    person: Name | None = None
    reason: Text


class SessionEndBody(Body):
    """Says why a session is ended."""

    reason: Text


class EvalQuery(PageQuery):
    state: RunState | None = None


class SwitchRequestQuery(PageQuery):
    """Filters and pages a list of switch requests. session: of that one alone. pending: what
    waits for a person.
    """

    session: Name | None = None
    pending: bool = False


class GrantQuery(PageQuery):
    """Filters and pages a list of grants. agent: of that one alone."""

    agent: Name | None = None


class ProposalQuery(PageQuery):
    """Selects proposals. open: only those that go on. decided: only those that the gate has
    decided on.
    """

    route: Name | None = None
    open: bool = False
    decided: bool = False


class VersionsQuery(Body):
    """Names two versions of a route. Without `to` the newer one is the newest, without `from`
    the older one is the version before it.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    older: Annotated[Count | None, Field(alias="from")] = None
    newer: Annotated[Count | None, Field(alias="to")] = None


class AlertQuery(PageQuery):
    """Selects alerts. search: a part of their text."""

    open: bool = False
    search: Text = ""


class FailoverQuery(PageQuery):
    """Selects failovers. user: the id as the client sent it. since_s: how far back."""

    route: Name | None = None
    user: Name | None = None
    since_s: Annotated[float, Field(gt=0, le=31_536_000)] = 86_400.0


class AuditQuery(PageQuery):
    """Selects audit events by parts of who acted, what was done, and to what. actor: also the
    whole id of a management key. since, until: times with a zone.
    """

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 50
    actor: Text = ""
    action: Text = ""
    subject: Text = ""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    @property
    def selection(self) -> AuditFilter:
        return AuditFilter(self.actor, self.action, self.subject, self.since, self.until)


class CaptureQuery(PageQuery):
    route: Name | None = None


class UserDeletionBody(Body):
    """Whose content is deleted, and why. user: as clients named it."""

    user: Name
    reason: Text


class PurgeQuery(Body):
    """Selects captured requests to delete; at least one field is given. user: as the client
    named it.
    """

    capture: Name | None = None
    route: Name | None = None
    user: Name | None = None
    all: bool = False
