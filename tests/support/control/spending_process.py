"""A process that spends until the monthly cap refuses it: `python -m
tests.support.control.spending_process URL COST_USD PURPOSE`, with a database that exists.
Prints how many calls it made.
"""

import sys
from contextlib import closing

from harness.evals.month_spending import SpendingPurpose
from harness.evals.spending_meter import SpendingMeter, StoredSpending
from harness.frame.runtime.clock import SystemClock
from harness.store.store import Store
from tests.support.site.signing_keys import CONTROL

SECRET = b"a secret of the installation"


def main(url: str, cost_usd: float, purpose: SpendingPurpose) -> None:
    with closing(Store(url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)) as store:
        meter = SpendingMeter(StoredSpending(store), SystemClock(), purpose)
        calls = 0
        meter.refresh(at_once=True)
        while not meter.find_obstacle():
            calls += 1
            meter.pay(cost_usd)
            meter.refresh()
    print(calls, flush=True)  # noqa: T201 - for the parent


if __name__ == "__main__":
    url, cost_usd, purpose = sys.argv[1:4]
    main(url, float(cost_usd), SpendingPurpose(purpose))
