"""Sessions by the dozen and by the thousand, while router and agents process are killed and
started again: nothing is lost, doubled or out of order.
"""

from pathlib import Path

import pytest

from tests.support.site.agents_load import Kills, SessionLoad
from tests.support.site.agents_site import agents_site

pytestmark = [pytest.mark.req("E2", "C5"), pytest.mark.slow]


@pytest.mark.verify
def test_thirty_sessions_lose_nothing_while_processes_are_killed(tmp_path: Path) -> None:
    hold(tmp_path, None, sessions=30, messages=5, kills=3)


@pytest.mark.verify
def test_on_postgresql_they_lose_nothing_either(postgres_url: str, tmp_path: Path) -> None:
    hold(tmp_path, postgres_url, sessions=60, messages=6, kills=4)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_thousand_sessions_of_twenty_messages_lose_nothing(tmp_path: Path) -> None:
    hold(tmp_path, None, sessions=1000, messages=20, kills=24)


def hold(
    folder: Path, database: str | None, *, sessions: int, messages: int, kills: int
) -> None:
    with agents_site(folder, database_url=database) as site:
        load, disturb = SessionLoad(site, sessions, messages), Kills(kills)
        load.run(24, disturb)
        load.assert_whole()
        assert len(disturb.done) == kills
        assert "kill agents" in disturb.done
        assert load.tried_again
