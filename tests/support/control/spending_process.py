"""A process that spends until the monthly cap refuses it: `python -m
tests.support.control.spending_process URL CALL_USD COST_USD PURPOSE [--hang]`, with a database
that exists. Prints how many calls it made; with --hang it stays in its first one.
"""

import sys
import time
from contextlib import closing

from harness.control.operations.spending_allowance import Allowance
from harness.domain.operations.spending import SpendingPurpose
from harness.runtime.clock import SystemClock
from harness.runtime.random_ids import SystemRandomIds
from harness.store.store import Store
from tests.support.site.signing_keys import CONTROL

SECRET = b"a secret of the installation"


def main(
    url: str, call_usd: float, cost_usd: float, purpose: SpendingPurpose, *, hang: bool
) -> None:
    with closing(Store(url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)) as store:
        new_id = SystemRandomIds().token
        allowance = Allowance(store, SystemClock(), new_id, purpose, "a test")
        calls = 0
        while (taken := allowance.take(call_usd, "sim/base")) is not None:
            calls += 1
            if hang:
                print("asking", flush=True)  # noqa: T201 - for the parent
                time.sleep(600)
            allowance.settle(taken, cost_usd)
        allowance.close()
    print(calls, flush=True)  # noqa: T201 - for the parent


if __name__ == "__main__":
    url, call_usd, cost_usd, purpose = sys.argv[1:5]
    hang = "--hang" in sys.argv
    main(url, float(call_usd), float(cost_usd), SpendingPurpose(purpose), hang=hang)
