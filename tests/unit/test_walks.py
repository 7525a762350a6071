"""How many files of the product a chat and a swap pass: what a reader must know to follow one.

`sys.setprofile` tells of each function that is entered; the same walk went before, so that no
import counts. A file more needs a reason, a file less lowers the figure.
"""

from pathlib import Path
from typing import Final

from harness.frame import package_data
from harness.proposals import decisions
from harness.routing.proposal import ProposalPhase
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.router.costed_requests import KINDS, files
from tests.support.router.counted_router import CallCounter

CHAT_FILES: Final = 36
SWAP_FILES: Final = 144
TURNS: Final = 40


def test_a_chat_passes_few_files_and_the_page_about_the_code_names_each(tmp_path: Path) -> None:
    page = package_data.DOCS.joinpath("explanation/architecture.md").read_text(encoding="utf-8")
    passed = files(KINDS["plain"], tmp_path)

    assert len(passed) <= CHAT_FILES, list_files(passed)
    of_the_router = [file for file in passed if file.parts[0] == "router"]
    assert [file for file in of_the_router if f"`{file}`" not in page] == []


def test_a_swap_from_its_proposal_to_its_promotion_passes_no_more_files(tmp_path: Path) -> None:
    swap(installation(tmp_path / "before"))
    world = installation(tmp_path / "counted")
    with CallCounter() as counter:
        swap(world)

    passed = counter.product_files()
    assert len(passed) <= SWAP_FILES, list_files(passed)


def installation(folder: Path) -> SmallInstallation:
    folder.mkdir()
    world = SmallInstallation(folder, policy=approved())
    world.set_up()
    return world


def swap(world: SmallInstallation) -> None:
    """Proposes, evaluates, approves, runs the canary and promotes, all in this thread."""
    proposal = world.decided().id
    decisions.approve_proposal(world.context(), BEN, proposal)
    for _ in range(TURNS):
        if not world.get(proposal).open:
            break
        world.feed(blocks=4)
        world.run_once()
    assert world.get(proposal).phase is ProposalPhase.PROMOTED


def list_files(passed: dict[Path, int]) -> str:
    return "\n".join(sorted(map(str, passed)))
