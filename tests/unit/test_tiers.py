"""Which tests of the checkout are left out of `make test`."""

from pathlib import Path

import pytest

from tests.conftest import TESTS, takes_long


@pytest.mark.parametrize(
    ("file", "long"),
    [
        ("unit/test_split.py", False),
        ("unit/test_dashboard_pages.py", True),
        ("contract/test_model_clients.py", False),
        ("integration/test_chains.py", True),
    ],
)
@pytest.mark.parametrize("checkout", [TESTS, Path("/builds/integration/swapproof/tests")])
def test_the_folder_within_the_tests_decides_what_takes_long(
    checkout: Path,
    file: str,
    *,
    long: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.conftest.TESTS", checkout)

    assert takes_long(checkout / file) is long
