"""The two people of most tests: Ann proposes, Ben approves."""

from harness.frame.people.access import Actor, Role

ANN = Actor("ann", Role.PROPOSER, "pr_ann")
BEN = Actor("ben", Role.APPROVER, "pr_ben")
