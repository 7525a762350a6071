"""Whatever people, traffic, clocks, providers and crashes do, in any order: the promise holds.

Hypothesis draws the order, over the store in memory.
"""

import os

import pytest
from hypothesis import settings

from tests.support.control.control_plane_machine import ControlPlane


def sized(examples: int) -> settings:
    return settings(settings.get_profile("dev"), max_examples=examples, stateful_step_count=50)


in_verify = os.environ.get("SWAPGATE_HYPOTHESIS") == "verify"


@pytest.mark.req("A7", "F1", "F5")
@pytest.mark.timeout(1200)  # for a machine that does ten other things
class TestTheControlPlane(ControlPlane.TestCase):  # type: ignore[misc,valid-type]  # hypothesis
    settings = sized(100 if in_verify else 4)
