"""CanaryBench: exposures to rollback, false rollbacks. `python -m benchmarks.canary.run`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.canary.rules import RULES, SLOW, Rule
from benchmarks.canary.traffic import Truth, simulate

# Canary failure rate, and the exposures after which a run counts as "never".
SICK = ((0.02, 6000), (0.05, 1500), (0.20, 1000), (1.00, 1000))
HEALTHY_CAP = 1000
INCIDENT = range(400, 420)


@dataclass(frozen=True)
class Detection:
    """Exposures to rollback (inf: never within the cap), one per simulated rollout."""

    exposures: np.ndarray

    @property
    def rate(self) -> float:
        return float(np.isfinite(self.exposures).mean())

    def __str__(self) -> str:
        return f"{self._at(0.5)} / {self._at(0.95)}"

    def _at(self, share: float) -> str:
        value = float(np.quantile(self.exposures, share, method="higher"))
        return f"{value:.0f}" if np.isfinite(value) else "> cap"


def detect(
    rule: Rule,
    truth: Truth,
    *,
    cap: int,
    rollouts: int,
    seed: int = 5,
    incident: Sequence[int] = (),
) -> Detection:
    """The same seed gives every rule the same traffic."""
    found = []
    for index in range(rollouts):
        rng = np.random.default_rng([seed, index, round(truth.canary * 1000)])
        traffic = simulate(truth, cap // truth.canaries, rng, incident)
        exposures = rule(traffic)
        found.append(np.inf if exposures is None else float(exposures))
    return Detection(np.array(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=400, help="simulated per cell")
    rollouts = parser.parse_args().rollouts
    print("control 1 % errors, share 1 %; exposures to rollback, median / p95")
    heads = "".join(f"{f'{rate:.0%}':>15}" for rate, _ in SICK)
    print(f"{'rule':<20}{heads}{'false':>9}{'incident':>10}")
    for name, rule in RULES.items():
        runs = max(10, rollouts // 20) if name in SLOW else rollouts
        cells = [
            str(detect(rule, Truth(canary=rate), cap=cap, rollouts=runs)) for rate, cap in SICK
        ]
        healthy = detect(rule, Truth(), cap=HEALTHY_CAP, rollouts=runs)
        shaken = detect(rule, Truth(), cap=HEALTHY_CAP, rollouts=runs, incident=INCIDENT)
        line = "".join(f"{cell:>15}" for cell in cells)
        print(f"{name:<20}{line}{healthy.rate:>9.3f}{shaken.rate:>10.3f}")


if __name__ == "__main__":
    main()
