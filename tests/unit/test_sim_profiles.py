"""Profiles: what a file or a request may say about a simulated model."""

from pathlib import Path

import pytest

from evals.sim import profiles
from evals.sim.profiles import Profile
from harness.domain.errors import ConfigError, InputError


def test_the_shipped_models_are_there() -> None:
    assert set(profiles.load_profiles()) == {
        "sim-base",
        "sim-better",
        "sim-worse",
        "sim-fragile",
        "sim-fenced",
        "sim-equal",
        "sim-backup",
    }


def test_a_users_file_says_only_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: {skill: {default: 0.6, tickets: 0.9}}\nb:\n")

    found = profiles.load_profiles(file)

    assert found["b"] == Profile("b")
    assert (found["a"].skill_in("tickets"), found["a"].skill_in("other")) == (0.9, 0.6)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: {skil: 0.5}", "a: skil: Unexpected"),
        ("a: {skill: 1.5}", "a: default_skill: Input should be less than or equal to 1"),
        ("a: {skill: {tickets: high}}", r"a: skill\.tickets"),
        ("a: {habits: {json_fence: 0.8}}", r"a: habits\.json_fence: Unexpected"),
        ("a: {latency: {tokens_per_s: 0}}", r"a: latency\.tokens_per_s"),
        ("a: {price: 5}", "a: price"),
        ("a: {serves: [b]}", "a: serves"),
        ("a: {build: 'b 1'}", "a: build"),
        ("a: [", "mine.yaml:1: "),
        ("- a", "must be a mapping"),
        ("a: {price: {input: 5}}", r"a: price\.input: Unexpected"),
    ],
)
def test_a_fault_in_a_file_is_named_with_its_place(
    tmp_path: Path, text: str, place: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)

    with pytest.raises((ConfigError, InputError), match=place):
        profiles.load_profiles(file)
