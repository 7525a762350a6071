"""Protocols of the world around the use cases: clock, ids, signatures, providers, eval workers.
Records have none: use cases import `harness.store.transaction` as it is.
"""

# ruff: noqa: F403 - a list of names here would be a second place to change for each new one

from harness.ports.evals import *
from harness.ports.providers import *
from harness.ports.world import *
