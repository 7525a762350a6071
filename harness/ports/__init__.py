"""What Swapgate needs of the world, as Protocols, by subject. Each has a real adapter.

A `Transaction` is one unit of work: all of it is stored, or none. Reads in it see its writes.
"""

# ruff: noqa: F403 - a list of names here would be a second place to change for each new one

from harness.ports.access import *
from harness.ports.agents import *
from harness.ports.database import *
from harness.ports.evals import *
from harness.ports.operations import *
from harness.ports.proposals import *
from harness.ports.providers import *
from harness.ports.routing import *
from harness.ports.world import *
