"""One table says what to do after a verdict, by its outcome, for command line, reports and
dashboard.
"""

from collections.abc import Mapping
from typing import Final

# By a verdict's outcome.
NEXT_STEPS: Final[Mapping[str, str]] = {
    "passed": "nothing in the evals speaks against a canary.",
    "failed": "keep the incumbent. The samples show where the candidate is worse; propose "
    "another candidate, or this one with a changed request patch.",
    "harness_mismatch": "give the candidate a request patch that fixes the format, then "
    "propose the patched target.",
    "inconclusive": "keep the incumbent; plan more items, or withdraw the candidate.",
    "infra_error": "run `swapgate doctor`, fix what it names, then propose again. This says "
    "nothing about the candidate.",
}
