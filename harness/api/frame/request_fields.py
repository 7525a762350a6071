"""Pydantic models of the management API's request bodies and query parameters, and how they
become domain requests; those about routes are in `route_fields`. An unknown field is an error,
and so is NaN.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from harness.control.proposals.submission import MOST_CANDIDATES, ProposalRequest
from harness.domain.evals.run import RunState
from harness.domain.evals.suite_plan import Claim
from harness.domain.operations.access import OptOut
from harness.domain.operations.audit import AuditFilter
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.reliability.rate_limits import KeyLimits
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

    def arguments(self) -> dict[str, Any]:
        """Gives the fields as arguments of a use case; one that is null keeps its default."""
        given = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in given if value is not None}


class PageQuery(Body):
    """Asks for a page of a list. after: the `next` of the page before."""

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 100
    after: Cursor | None = None

    @property
    def page(self) -> PageRequest:
        return PageRequest(self.limit, self.after)

    def arguments(self) -> dict[str, Any]:
        others = super().arguments().items()
        filters = {name: value for name, value in others if name not in ("limit", "after")}
        return {**filters, "page_request": self.page}


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
    """Proposes a swap. candidate: an id or `provider/model`. claim, margin: None for the
    policy's.

    min_saving: of the claim cheaper_and_not_worse, a share of 1; None for the policy's.
    rivals: other candidates for the same swap; the best of those that pass goes on.
    change_reference: of the change request in the team's own system.
    """

    route: Name
    candidate: Name
    reason: Text = ""
    claim: Claim | None = None
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    descends_from: Name | None = None
    min_saving: Annotated[float, Field(gt=0, lt=1)] | None = None
    rivals: Annotated[tuple[Name, ...], Field(max_length=MOST_CANDIDATES - 1)] = ()
    change_reference: Name | None = None

    def to_request(self) -> ProposalRequest:
        reference = self.change_reference or ""
        given = self.model_dump(exclude={"change_reference"})
        return ProposalRequest(**given, change_reference=reference)


class ApprovalBody(Body):
    """Approves a proposal. verdict: the one that the approver saw; refused when it is another
    by now. change_reference: of the change request, where the proposal names none.
    """

    reason: Text = ""
    expected_verdict: Annotated[Name | None, Field(alias="verdict")] = None
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


class RouteQuery(PageQuery):
    """Filters and pages a list by route."""

    route: Name | None = None


class CanaryOperationBody(Body):
    """Asks for an act on a canary. version: of the rollout that the person looked at; another
    one is a conflict.
    """

    reason: Text
    version: int | None = None


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
    a service. opt_outs: what the data key's requests are kept out of.
    """

    name: Name
    principal: Name | None = None
    service: bool = False
    role: Literal["viewer", "proposer", "approver", "admin"] | None = None
    routes: Annotated[list[Name], Field(max_length=1000)] = []
    limits: LimitsBody | None = None
    opt_outs: set[OptOut] = set()


class OptOutsBody(Body):
    """Carries what a data key opts out of, as a whole."""

    opt_outs: set[OptOut]


class DeclarationBody(Body):
    """Declares who a principal is. person: the name of the principal that he is as well; None
    for nobody else here.
    """

    person: Name | None = None
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
    open_only: Annotated[bool, Field(alias="open")] = False
    decided_only: Annotated[bool, Field(alias="decided")] = False


class AlertQuery(PageQuery):
    """Selects alerts. search: a part of their text."""

    open_only: Annotated[bool, Field(alias="open")] = False
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
