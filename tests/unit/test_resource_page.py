import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import current_user
from harness.app.installation import CONFIG_VARIABLE
from harness.frame.people.access import Actor, Role
from tests.support.browser.dashboard_data import BEN, configured
from tests.unit.test_dashboard_page_states import forget, text

# A page of fruits; a test replaces some lines.
PAGE = """
from dashboard import page_frame
from dashboard.dialog_forms import Opener
from dashboard.resource_page import Cards, ResourceList, ResourcePage, Search
from harness.frame.pagination import Page
from harness.frame.people.access import Role
from harness.frame.signing.signed_rows import RowFault

FRUITS = ["apple", "banana", "cherry"]

def opener(name, role, missing=""):
    return Opener(f"{name} …", "", lambda: None, f"open-{name}", role, missing)

FRUIT_LIST = ResourceList(
    rows=lambda fruits: fruits,
    cells=lambda fruits, fruit: {"Fruit": fruit, "Of": f"{len(fruits)}"},
    heading="Fruits",
    nothing="No fruit yet:",
    fills="swapproof fruit add",
    what="fruits",
    MORE
)
PAGE = ResourcePage(
    name="The fruits",
    ask=lambda: FRUITS,
    load=lambda ctx, query: query,
    title=lambda fruits: (f"{len(fruits)} fruits", "all fresh"),
    parts=(FRUIT_LIST.show,),
    commands=lambda query: [["fruit", "list"]],
)
page_frame.show_page(PAGE.name, PAGE.show)
"""
CARDS = """
    cards=Cards(
        key=lambda fruit: f"card-{fruit}",
        parts=lambda fruits, fruit: [f"<p>{fruit}</p>"],
        actions=lambda fruits, fruit: [
            opener(f"Eat {fruit}", Role.APPROVER, "It is unripe." if fruit == "apple" else ""),
        ],
    ),
"""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget()
    monkeypatch.setenv(CONFIG_VARIABLE, str(configured(tmp_path)))
    yield
    forget()


def draw(more: str = "", **fields: str) -> AppTest:
    """Draws the page of fruits.

    Args:
        more: further fields of the list.
        fields: other values.
    """
    script = PAGE.replace("    MORE\n", more)
    for name, value in fields.items():
        script = re.sub(rf"\b{name}( ?= ?).*?(,?)\n", rf"{name}\g<1>{value}\g<2>\n", script)
    app = AppTest.from_string(script, default_timeout=120).run()
    assert not app.exception
    return app


def act_as(monkeypatch: pytest.MonkeyPatch, actor: Actor) -> None:
    monkeypatch.setattr(current_user, "signed_in", lambda: actor)


def test_a_page_answers_first_then_lists_its_rows_and_ends_with_its_command() -> None:
    app = draw()

    said = text(app)
    assert said.index("<h1>3 fruits</h1>") < said.index("<h2>Fruits</h2>")
    assert said.count('<td data-head="Fruit">') == 3
    assert app.code[0].value == "swapproof fruit list"


def test_a_list_without_rows_says_what_fills_it_or_is_left_out() -> None:
    filled = "<p>No fruit yet:</p><p><code>swapproof fruit add</code></p>"
    assert filled in text(draw(FRUITS="[]"))
    assert "<code>" not in text(draw(FRUITS="[]", fills="''"))
    assert "<h2>Fruits</h2>" not in text(draw(FRUITS="[]", nothing="''"))


def test_a_long_list_is_searched_and_says_how_many_of_its_rows_it_shows() -> None:
    search = """
    search=Search("Find", "Its name", lambda fruit: fruit, 2, "No such fruit."),
"""
    app = draw(search)
    assert "2 of 3 fruits" in text(app)

    app.text_input(key="find").set_value("CHERRY").run()
    assert re.findall(r'data-head="Fruit"><div>(\w+)', text(app)) == ["cherry"]
    app.text_input(key="find").set_value("stone").run()
    assert "No such fruit." in text(app)
    assert "<td" not in text(app)


def test_a_page_of_a_longer_list_names_its_invalid_rows_and_the_command_for_the_rest() -> None:
    fault = 'RowFault("fruits", ("plum",), "not signed")'
    rows = f'Page(["apple"], 9, "after-apple", [{fault}])'

    said = text(draw('    lists_all="swapproof fruit list",\n', FRUITS=rows))

    assert "1 of 9 fruits; <code>swapproof fruit list</code> lists all." in said
    assert "✕ fruits plum." in said


def test_one_note_above_the_cards_asks_for_the_role_and_each_card_says_what_else_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = draw(CARDS)
    assert text(app).count("Sign in first") == 1
    assert text(app).count("It is unripe.") == 1
    assert all(button.disabled for button in app.button)

    act_as(monkeypatch, BEN)
    app = draw(CARDS)
    assert BEN.role >= Role.APPROVER
    assert text(app).count("It is unripe.") == 1
    assert [button.label for button in app.button if not button.disabled] == [
        "Eat banana …",
        "Eat cherry …",
    ]
