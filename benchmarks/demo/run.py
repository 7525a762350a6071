"""How often would `make demo` end otherwise than told? A thousand reseeded demos, no HTTP.

The demo itself is seeded: the simulator's answers and the items' order are the same in every
run, so its verdicts are too; only the canaries' draws are new. Here the answers and the order
are drawn anew as well, which is harder. Gate and canary are the product's own functions.

    python -m benchmarks.demo.run [--runs 1000]
"""

import argparse
import random
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from evals.sim import profiles
from evals.sim.item_bank import ItemBank, load_suites, suite_files
from evals.sim.simulated_model import SimulatedModel
from harness import config, package_data
from harness.app.demo.environment import MODELS
from harness.app.demo.scenarios import BETTER, FAULT_RATE, FRAGILE, INCUMBENT, SUITE, WORSE
from harness.domain.canary.observation import ObservationBlock
from harness.domain.proposals.policy import Policy
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_differences
from harness.gate.online.rollout_evidence import collect_evidence

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOLD = {BETTER: "promote", WORSE: "reject", FRAGILE: "promote"}


def verdicts(bank: ItemBank, policy: Policy, rng: random.Random) -> dict[str, str]:
    """Each candidate's outcome with answers and order drawn anew."""
    models = {
        name: SimulatedModel(replace(profile, seed=rng.randrange(2**31)), bank)
        for name, profile in profiles.load_profiles(MODELS).items()
    }
    items = rng.sample(bank.suites[SUITE], k=policy.gate.n_max or len(bank.suites[SUITE]))
    right = {name: [m.sit(item).right for item in items] for name, m in models.items()}
    base = right[INCUMBENT.partition("/")[2]]
    design = Design(policy.gate.claim, policy.gate.margin, len(items), policy.gate.alpha)
    return {
        name: judge_differences(
            [float(b) - float(a) for a, b in zip(base, right[model], strict=True)], design
        ).outcome
        for name in TOLD
        for model in [name.partition("/")[2]]
    }


def rolled_back(policy: Policy, rng: random.Random) -> int | None:
    """Canary exposures until the failing candidate is rolled back; None if it moved up."""
    step, size = policy.canary.steps[0], policy.canary.block_size
    blocks: list[ObservationBlock] = []
    while sum(block.canary_units for block in blocks) < step.min_exposures:
        canary = sum(rng.random() < step.weight_bps / 10_000 for _ in range(size))
        failed = sum(rng.random() < FAULT_RATE for _ in range(canary))
        blocks.append(_block(len(blocks) + 1, size, canary, failed))
        if collect_evidence(blocks, policy.canary).block is not None:
            return sum(block.canary_units for block in blocks)
    return None


def _block(number: int, size: int, canary: int, failed: int) -> ObservationBlock:
    return ObservationBlock(
        "r", "w", number, 100, size, canary, failed, failed, 0, NOW, NOW, number
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    defaults = package_data.path("config/default.yaml")
    policy = config.load_settings(None, {}, defaults=defaults).policies["demo"]
    bank = ItemBank(load_suites(suite_files(package_data.path("datasets"))))
    wrong: Counter[str] = Counter()
    ended_wrong, exposures = 0, []
    for run in range(runs):
        rng = random.Random(run)  # noqa: S311 - a simulation
        found = verdicts(bank, policy, rng)
        bad = [f"{name}: {found[name]}" for name in TOLD if found[name] != TOLD[name]]
        took = rolled_back(policy, rng)
        bad += ["the failing canary moved up"] if took is None else []
        exposures.append(took or policy.canary.steps[0].min_exposures)
        wrong.update(bad)
        ended_wrong += bool(bad)
    print(f"{runs:,} reseeded demos, {ended_wrong} ended otherwise than told")
    for what, count in wrong.most_common():
        print(f"  {count:4}  {what}")
    exposures.sort()
    middle, late = exposures[len(exposures) // 2], exposures[int(len(exposures) * 0.95)]
    print(f"exposures until the rollback: median {middle}, 95 % {late}, most {exposures[-1]}")
    return 1 if ended_wrong * 1000 >= runs else 0


if __name__ == "__main__":
    sys.exit(main())
