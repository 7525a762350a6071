"""`RoutingContext`: everything outside a use case that a use case of routing may use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.frame.errors import NotFound
from harness.frame.records.transaction import Transaction
from harness.frame.suggestions import did_you_mean
from harness.gate.policy import Policy
from harness.gate.run import EvalRun
from harness.gate.suite_plan import SuitePin
from harness.providers.context import ProvidersContext
from harness.providers.ports import ProviderUses
from harness.routing.control.provider_uses import StoredUses
from harness.routing.freeze import FreezeWindow

# Returns why a run's scores and answers are hidden from everybody; empty if they are shown.
WhyHidden = Callable[[Transaction, EvalRun], str]


def hide_nothing(_tx: Transaction, _run: EvalRun) -> str:
    """Hides no run, in a process that knows no proposals."""
    return ""


class PinnedSuites(Protocol):
    """The configured suites, as far as a route's settings name them."""

    def pin(self, suite: str) -> SuitePin:
        """Builds a pin. Raises NotFound, naming the nearest suite; InputError."""
        ...

    def data_class(self, suite: str) -> str:
        """Returns the class of a suite's data, empty for none. Raises NotFound."""
        ...


@dataclass(frozen=True, kw_only=True)
class RoutingContext(ProvidersContext):
    """Adds policies, freezes, the pins of suites, and which runs are hidden."""

    suites: PinnedSuites
    policies: Mapping[str, Policy]
    uses: ProviderUses = field(default_factory=StoredUses, repr=False)
    observe_only: bool = False  # if set, no canary opens and no candidate is promoted
    freeze_windows: tuple[FreezeWindow, ...] = ()  # weekly windows from the file
    why_hidden: WhyHidden = field(default=hide_nothing, repr=False)

    def policy(self, name: str) -> Policy:
        """Returns a policy by name. Raises NotFound, with the nearest name."""
        try:
            return self.policies[name]
        except KeyError:
            hint = did_you_mean(name, self.policies)
            raise NotFound(f"there is no policy {name!r}{hint}") from None
