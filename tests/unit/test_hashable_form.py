"""What is hashed of a record outlives a new field."""

from dataclasses import dataclass, field, make_dataclass

import pytest

from harness.control.serialize import to_hashable
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

    assert digest(to_hashable(Old("a", {"x": 1}))) == digest(to_hashable(new("a", {"x": 1})))
    assert digest(to_hashable(new("a", {}, shadow=1))) != digest(to_hashable(new("a")))


def test_what_is_set_otherwise_is_kept_at_every_depth() -> None:
    assert to_hashable(CanaryPolicy()) == {}
    assert to_hashable(CanaryPolicy(alpha=0.03)) == {"alpha": 0.03}
    assert to_hashable([{"a": CanaryPolicy(p0=0.5)}]) == [{"a": {"p0": 0.5}}]
    assert len(to_hashable(CanaryPolicy(steps=DEFAULT_STEPS[:2]))["steps"]) == 2  # type: ignore[index, arg-type, call-overload]


def test_a_whole_number_is_not_taken_for_a_flag() -> None:
    assert to_hashable(CanaryPolicy(bake_s=0.0)) == {"bake_s": 0.0}
    flag = make_dataclass("Flag", [("on", object, False)], frozen=True)
    assert to_hashable(flag(0)) == {"on": 0}
