"""`StoredUses` finds the routes, proposals, canaries and eval runs that need a provider, in the
database. Use cases of providers ask it by the protocol `ProviderUses`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from harness.frame.records.transaction import Transaction
from harness.gate.run import RunState
from harness.providers.force import KillSwitch
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.records.interventions import Shadows, Switches
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns


class StoredUses:
    """Implements `ProviderUses`."""

    def routed_targets(self, tx: Transaction) -> Mapping[str, Sequence[Target]]:
        table = Routing(tx).table()
        return {
            name: [table.targets[target] for target in sorted(route.targets)]
            for name, route in sorted(table.routes.items())
        }

    def run_times(self, tx: Transaction, targets: Collection[str]) -> Sequence[datetime]:
        newest = EvalRuns(tx).newest_of_targets(targets, [*RunState])
        return [run.created_at for run in newest]

    def open_work(self, tx: Transaction, provider: str) -> Sequence[str]:
        by_id = Targets(tx).all()
        judged = (*Rollouts(tx).live(), *Rollouts(tx).baking())
        return [
            *(
                f"proposal {proposal.id}"
                for proposal in Proposals(tx).open()
                if by_id[proposal.candidate].provider == provider
            ),
            *(
                f"shadow of route {shadow.route}"
                for shadow in Shadows(tx).live()
                if shadow.candidate.provider == provider
            ),
            *(
                f"judge of the canary of route {rollout.route}"
                for rollout in judged
                if (judge := rollout.policy.judge) is not None
                and Target.from_name(judge.model).provider == provider
            ),
        ]

    def outdated_work(self, tx: Transaction, provider: str) -> Sequence[str]:
        targets = Targets(tx).all()

        def there(*arms: str) -> bool:
            return any(targets[arm].provider == provider for arm in arms)

        rollouts = Rollouts(tx).live()
        live = {rollout.proposal for rollout in rollouts}
        return [
            *(
                f"canary {rollout.id} of route {rollout.route}, which cannot advance: abort it "
                "and propose again"
                for rollout in rollouts
                if there(rollout.incumbent, rollout.candidate)
            ),
            *(
                f"proposal {proposal.id} of route {proposal.route}"
                for proposal in Proposals(tx).open()
                if proposal.id not in live
                and proposal.runs
                and there(proposal.incumbent, proposal.candidate)
            ),
        ]

    def switches(self, tx: Transaction) -> Sequence[KillSwitch]:
        return Switches(tx).not_lifted()
