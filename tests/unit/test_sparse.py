"""What is hashed of a record outlives a new field."""

from dataclasses import dataclass, field, make_dataclass

import pytest

from harness.control.hashable_form import sparse
from harness.domain.content_hash import digest
from harness.domain.proposals.policy import DEFAULT_STEPS, CanaryPolicy


@dataclass(frozen=True)
class Old:
    name: str
    limits: dict[str, int] = field(default_factory=dict)


@pytest.mark.req("F5")
def test_a_field_that_a_later_version_adds_changes_no_hash_of_what_was_stored() -> None:
    new = make_dataclass(
        "New",
        [
            ("name", str),
            ("limits", dict, field(default_factory=dict)),
            ("shadow", object, None),
        ],
        frozen=True,
    )

    assert digest(sparse(Old("a", {"x": 1}))) == digest(sparse(new("a", {"x": 1})))
    assert digest(sparse(new("a", {}, shadow=1))) != digest(sparse(new("a")))


def test_what_is_set_otherwise_is_kept_at_every_depth() -> None:
    assert sparse(CanaryPolicy()) == {}
    assert sparse(CanaryPolicy(alpha=0.03)) == {"alpha": 0.03}
    assert sparse([{"a": CanaryPolicy(p0=0.5)}]) == [{"a": {"p0": 0.5}}]
    assert len(sparse(CanaryPolicy(steps=DEFAULT_STEPS[:2]))["steps"]) == 2  # type: ignore[index, arg-type, call-overload]


def test_a_whole_number_is_not_taken_for_a_flag() -> None:
    assert sparse(CanaryPolicy(bake_s=0.0)) == {"bake_s": 0.0}
    flag = make_dataclass("Flag", [("on", object, False)], frozen=True)
    assert sparse(flag(0)) == {"on": 0}
