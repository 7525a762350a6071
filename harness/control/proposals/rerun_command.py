"""The `swapgate gate run` that asks a proposal's question once more, as one would type it."""

import shlex
from typing import Final

from harness.control.proposals.comparison import Comparison
from harness.domain.evals.run import Claim, SuiteRole
from harness.domain.routing.target import Target
from harness.gate.offline.format_rules import target_options

OPTIONS: Final = {SuiteRole.REQUIRED: "--suite", SuiteRole.GUARD: "--guard"}


def build_rerun_command(found: Comparison, candidate: Target | None = None) -> str:
    """The command: the same suites, roles, policy, claim and limits.

    candidate: to be asked instead of the proposal's. Empty where no `gate run` can ask it:
    several primary suites, or an incumbent that has settings of its own.
    """
    proposal, incumbent = found.proposal, found.incumbent
    primary = [plan.suite for plan in proposal.plans if plan.role is SuiteRole.PRIMARY]
    own = incumbent.parameters or not incumbent.request_patch.empty
    if len(primary) != 1 or own:
        return ""
    asked = candidate or found.candidate
    # The first suite is the primary one.
    words = ["swapgate", "gate", "run", "--suite", *primary]
    for plan in proposal.plans:
        if plan.role is not SuiteRole.PRIMARY:
            words += [OPTIONS[plan.role], plan.suite]
    words += ["--incumbent", f"{incumbent.provider}/{incumbent.model}"]
    words += ["--candidate", f"{asked.provider}/{asked.model}", *target_options(asked)]
    words += ["--policy", proposal.policy.name, "--claim", proposal.claim.value]
    gate = proposal.policy.gate
    words += ["--margin", f"{gate.margin!r}"]
    if proposal.claim is Claim.CHEAPER:
        words += ["--min-saving", f"{gate.min_saving!r}"]
    if any(name.startswith("gate.") for name in proposal.widened):
        words.append("--wider")
    if proposal.reason:
        words += ["--reason", " ".join(proposal.reason.split())]
    return shlex.join(words)
