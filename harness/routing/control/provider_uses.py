"""`StoredUses` finds the routes, proposals, canaries and eval runs in the database that need a
provider. Use cases of providers call it through the protocol `ProviderUses`.
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
        targets = Targets(tx).all()
        unfinished = (*Rollouts(tx).live(), *Rollouts(tx).baking())
        return [
            *(
                f"proposal {proposal.id}"
                for proposal in Proposals(tx).open()
                if targets[proposal.candidate].provider == provider
            ),
            *(
                f"shadow of route {shadow.route}"
                for shadow in Shadows(tx).live()
                if shadow.candidate.provider == provider
            ),
            *(
                f"judge of the canary of route {rollout.route}"
                for rollout in unfinished
                if (judge := rollout.policy.judge) is not None
                and Target.from_name(judge.model).provider == provider
            ),
        ]

    def outdated_work(self, tx: Transaction, provider: str) -> Sequence[str]:
        targets = Targets(tx).all()

        def is_affected(*target_ids: str) -> bool:
            return any(targets[target_id].provider == provider for target_id in target_ids)

        rollouts = Rollouts(tx).live()
        live_proposals = {rollout.proposal for rollout in rollouts}
        return [
            *(
                f"canary {rollout.id} of route {rollout.route}, which cannot advance: abort it "
                "and propose again"
                for rollout in rollouts
                if is_affected(rollout.incumbent, rollout.candidate)
            ),
            *(
                f"proposal {proposal.id} of route {proposal.route}"
                for proposal in Proposals(tx).open()
                if proposal.id not in live_proposals
                and proposal.runs
                and is_affected(proposal.incumbent, proposal.candidate)
            ),
        ]

    def switches(self, tx: Transaction) -> Sequence[KillSwitch]:
        return Switches(tx).not_lifted()
