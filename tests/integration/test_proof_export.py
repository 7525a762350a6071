import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.app.proof import ProofFindings, verify_proof
from harness.app.store.proof_rows import DOCUMENT, read_proof
from harness.canary import operations
from harness.frame.errors import InputError
from harness.frame.people.access import SYSTEM
from harness.frame.signing.keyring import (
    KeyPurpose,
    format_keyring,
    row_payload,
)
from harness.routing.evidence import Proof, format_proof
from harness.routing.records.proposals import Proposals
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.command_line import installed
from tests.support.site.signing_keys import CONTROL, KEYRING, PUBLIC, WORKER

pytestmark = pytest.mark.req("F1", "F5")
Whole = dict[str, Any]


def exported(world: SmallInstallation, proposal: str) -> Proof:
    with world.store.write() as tx:
        return read_proof(tx, Proposals(tx).get(proposal), world.clock.now())


def verified(folder: Path, text: str) -> ProofFindings:
    """What somebody finds who has nothing but the file and the public keys."""
    (folder / "proof.json").write_text(text, encoding="utf-8")
    (folder / "signing.pub").write_text(format_keyring(KEYRING.values()), encoding="utf-8")
    return verify_proof(folder / "proof.json", folder / "signing.pub")


@pytest.fixture(scope="module")
def promotion(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """Of a promotion; its file is the same whichever database it came from."""
    world = SmallInstallation(tmp_path_factory.mktemp("promotion"))
    world.set_up()
    return exported(world, world.promoted().id)


@pytest.mark.both_databases
def test_a_promotion_is_verified_without_database_and_secret(
    world: SmallInstallation, tmp_path: Path
) -> None:
    proposal = world.promoted()

    text = format_proof(exported(world, proposal.id))
    found = verified(tmp_path, text)

    assert found.holds, found.faults
    said = "\n".join(found.shown)
    assert "Suite colours was registered before the candidate's first answer" in said
    assert f"margin {proposal.plans[0].margin:g}, alpha {proposal.plans[0].alpha:g}" in said
    assert "The verdict is PASSED" in said
    assert "the canary opened at 1 %" in said
    assert "sim/better became the incumbent" in said
    assert "Colour number" not in text  # no prompt and no answer leaves the installation


def test_a_rollback_after_the_promotion_is_part_of_the_proof(
    world: SmallInstallation, tmp_path: Path
) -> None:
    proposal = world.promoted()
    operations.roll_back(world.context(), SYSTEM, "chat", reason="users complained")

    found = verified(tmp_path, format_proof(exported(world, proposal.id)))

    assert found.holds, found.faults
    assert "the route went back to a former incumbent: users complained" in "\n".join(
        found.shown
    )


@pytest.mark.parametrize("candidate", ["worse", "equal"])
def test_a_verdict_against_the_candidate_is_proven_as_well(
    world: SmallInstallation,
    tmp_path: Path,
    candidate: str,
) -> None:
    proposal = world.decided(f"sim/{candidate}")

    found = verified(tmp_path, format_proof(exported(world, proposal.id)))

    assert found.holds, found.faults
    assert "No route change followed this verdict." in found.shown


def change_a_score(whole: Whole) -> None:
    whole["rows"]["sample"][3]["strict"] = 1.0 - whole["rows"]["sample"][3]["strict"]


def change_the_margin(whole: Whole) -> None:
    row = whole["rows"]["proposal"][0]
    row["plans"] = row["plans"].replace('"margin":', '"margin":1')


def change_the_outcome(whole: Whole) -> None:
    whole["rows"]["verdict"][0]["outcome"] = "failed"


def leave_out_a_sample(whole: Whole) -> None:
    del whole["rows"]["sample"][0]


def leave_out_a_change_of_the_route(whole: Whole) -> None:
    del whole["rows"]["route_version"][0]


def name_another_day(whole: Whole) -> None:
    whole["exported_at"] = "2020-01-01T00:00:00+00:00"


def add_a_table(whole: Whole) -> None:
    whole["rows"]["traffic"] = [{"signature": "x"}]


def add_a_fallback(whole: Whole) -> None:
    version = next(iter(whole["chains"]))
    whole["chains"][version].append(["t_else", "e_else"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_a_score, "sample run_"),
        (change_the_margin, "proposal p_"),
        (change_the_outcome, "verdict v_"),
        (leave_out_a_sample, "the file is not as it was exported"),
        (
            leave_out_a_change_of_the_route,
            "the file is not as it was exported",
        ),
        (name_another_day, "the file is not as it was exported"),
        (add_a_table, "the row traffic: this is not a signed table"),
        (add_a_fallback, "route_version "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_change_is_named(
    promotion: Proof,
    tmp_path: Path,
    change: Callable[[Whole], None],
    named: str,
) -> None:
    whole = json.loads(format_proof(promotion))

    change(whole)
    found = verified(tmp_path, json.dumps(whole, indent=1, sort_keys=True) + "\n")

    assert not found.holds
    assert any(named in fault for fault in found.faults), found.faults
    assert found.shown == ()


def resigned(
    proof: Proof,
    table: str,
    rows: Iterable[Mapping[str, Any]],
) -> str:
    """The file as the control key would sign it with these rows of a table."""
    covered = [{k: v for k, v in row.items() if k != "signature"} for row in rows]
    signed = [
        row | {"signature": CONTROL.sign(row_payload(table, proof.installation, row))}
        for row in covered
    ]
    forged = replace(proof, rows={**proof.rows, table: signed})
    whole = row_payload(DOCUMENT, proof.installation, forged.content)
    return format_proof(replace(forged, signature=CONTROL.sign(whole)))


def test_a_proof_says_how_many_answers_an_eval_worker_signed(
    promotion: Proof, tmp_path: Path
) -> None:
    rows = promotion.rows
    by_worker = [dict(row) for row in rows["sample"]]
    for row in [row for row in by_worker if row["run"] == by_worker[-1]["run"]][:3]:
        covered = {name: value for name, value in row.items() if name != "signature"}
        row["signature"] = WORKER.sign(row_payload("sample", promotion.installation, covered))
    forged = replace(promotion, rows={**rows, "sample": by_worker})

    said = "".join(verified(tmp_path, resigned(forged, "rollout", rows["rollout"])).shown)

    assert re.search(r"\b3 answers that an eval worker signed and 57 answers", said)


def test_a_keyring_of_another_installation_is_said_once_for_all_rows(
    promotion: Proof, tmp_path: Path
) -> None:
    (tmp_path / "proof.json").write_text(format_proof(promotion), encoding="utf-8")
    (tmp_path / "signing.pub").write_text(format_keyring([PUBLIC[KeyPurpose.WORKER]]), "utf-8")

    faults = verify_proof(tmp_path / "proof.json", tmp_path / "signing.pub").faults

    assert len(faults) == 2, faults
    assert "more rows: the signature is invalid: it is signed with the key" in faults[0]


@pytest.mark.parametrize(
    ("table", "column", "named"),
    [
        (
            "rollout",
            "proposal",
            "a row of rollout belongs to another proposal",
        ),
        ("rollout", "route", "a row of rollout belongs to another route"),
        ("verdict", "route", "a row of verdict belongs to another route"),
    ],
)
def test_a_signed_row_of_another_swap_is_named(
    promotion: Proof,
    tmp_path: Path,
    table: str,
    column: str,
    named: str,
) -> None:
    rows = [{**row, column: "another"} for row in promotion.rows[table]]

    found = verified(tmp_path, resigned(promotion, table, rows))

    assert any(named in fault for fault in found.faults), found.faults


def test_terms_that_were_registered_after_the_answers_are_named(
    world: SmallInstallation, tmp_path: Path
) -> None:
    """The control key itself signs an easier plan afterwards; the answers contradict it."""
    proposal = world.decided("sim/worse")
    easier = tuple(replace(plan, margin=0.5) for plan in proposal.plans)
    proof = exported(world, proposal.id)
    row = dict(proof.rows["proposal"][0])
    row["plans"] = json.dumps([plan.as_json() for plan in easier])

    found = verified(tmp_path, resigned(proof, "proposal", [row]))

    assert not found.holds
    assert any("may be newer than its answers" in fault for fault in found.faults)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace(": [", ":  [", 1), "line 3 was changed"),
        (lambda text: text[:-9], "this is not JSON"),
        (lambda _: "{}", "did not write this file"),
        (lambda _: "[]", "did not write this file"),
        (
            lambda text: text.replace("proof 1", "proof 2"),
            "its format is 'swapproof proof 2'",
        ),
    ],
    ids=["blank", "cut", "empty", "list", "newer"],
)
def test_a_file_that_is_not_as_it_was_written_is_refused_with_its_place(
    promotion: Proof,
    tmp_path: Path,
    change: Callable[[str], str],
    named: str,
) -> None:
    with pytest.raises(InputError, match=named):
        verified(tmp_path, change(format_proof(promotion)))


def test_export_and_verify_are_two_commands_and_the_second_needs_two_files(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        cli.run("config", "apply")
        proposal = cli.json("proposal", "create", "chat", "sim/better", "--reason", "x")
        decided = cli.world.until_decided(proposal["proposal"]["id"])
        written = cli.text("proof", "export", decided.id, "-o", "proof.json")
        again = cli.error("proof", "export", decided.id, "-o", "proof.json", exits=2)
        empty = tmp_path / "empty"
        empty.mkdir()
        (tmp_path / "proof.json").rename(empty / "proof.json")
        (empty / "signing.pub").write_text(format_keyring(KEYRING.values()), "utf-8")
        monkeypatch.chdir(empty)
        monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})

        shown = cli.text("proof", "verify", "proof.json", "--key", "signing.pub")
        as_json = cli.json("proof", "verify", "proof.json", "--key", "signing.pub")

        assert "proof.json exists" in again
        assert written == (
            "proof.json: verify it with `swapproof proof verify proof.json --key signing.pub`\n"
        )
        assert shown.endswith("The proof holds.\n")
        assert as_json["holds"] is True
        assert sorted(path.name for path in empty.iterdir()) == [
            "proof.json",
            "signing.pub",
        ]
