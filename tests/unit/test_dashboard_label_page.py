"""The page Labels: a labeller sees two answers and nothing else, and needs only keys."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard import current_user, page_frame
from dashboard.views.labels import CHOICES
from harness.app.installation import CONFIG_VARIABLE
from harness.frame.people.access import Role
from harness.proposals.labels import label_pairs
from tests.support.browser.dashboard_data import Lived, lived_copy
from tests.unit.test_dashboard_page_states import (
    copied,
    forget,
    now,
    shown,
    signed_in_as,
    text,
)

pytestmark = [pytest.mark.slow, pytest.mark.req("F13")]


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived_copy(tmp_path_factory, now())


@pytest.fixture(autouse=True)
def fresh_installation() -> Iterator[None]:
    forget()
    yield
    forget()


def test_a_person_labels_by_single_keys_and_sees_no_model_and_no_score(
    lived_in: Lived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copied(lived_in, tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    signed_in_as(monkeypatch, "lena", Role.PROPOSER)
    ctx = page_frame.installation().context
    actor, _ = current_user._find_actor()
    assert actor is not None
    started = label_pairs.start_labelling(ctx, actor, lived_in.proposals["awaiting"])
    app = shown(monkeypatch, config, "labels")

    assert "1 labelling to go on with" in text(app)
    assert "goes on" in text(app)
    app.button(key=f"open-{started.id}").click().run()
    for label in ("Answer A", "Answer B", "Pair 1"):
        assert label in text(app)
    for secret in ("sim/", "sim-better", "sim-base", "incumbent", "candidate"):
        assert secret not in text(app)
    keys = {button.proto.shortcut.lower() for button in app.button if button.proto.shortcut}
    assert {key for key, _, _ in CHOICES} <= keys
    app.button(key="mark-a").click().run()
    assert app.button(key="mark-a").label == "A is marked unacceptable ✓"
    app.button(key="choice-a").click().run()

    assert "Pair 2" in text(app)
    progress = label_pairs.load_progress(ctx, started.id)
    assert progress.labels == 1
    assert app.button(key="mark-a").label == "A is unacceptable"
    app.button(key="stop-labels").click().run()
    assert "1 label, " in text(app)


def test_who_is_not_one_of_the_people_cannot_open_a_labelling(
    lived_in: Lived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copied(lived_in, tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    signed_in_as(monkeypatch, "lena", Role.PROPOSER)
    ctx = page_frame.installation().context
    actor, _ = current_user._find_actor()
    assert actor is not None
    started = label_pairs.start_labelling(ctx, actor, lived_in.proposals["awaiting"])
    signed_in_as(monkeypatch, "otto", Role.PROPOSER)
    app = shown(monkeypatch, config, "labels")

    assert app.button(key=f"open-{started.id}").disabled
    assert "swapproof label" in app.code[0].value
