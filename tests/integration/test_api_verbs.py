from collections.abc import Mapping

import pytest

from tests.support.control.control_plane import SmallInstallation
from tests.support.site.management_api import Door, awaiting_approval, error_of, in_canary


def test_a_model_is_added_once_and_found_by_id_and_by_name(door: Door) -> None:
    wish = {"provider": "sim", "model": "org/big:1", "parameters": {"temperature": 0.5}}
    made = door.post("/models", wish, role="proposer")
    again = door.post("/models", wish, role="proposer")

    assert made.pop("unlisted") == again.pop("unlisted")
    assert made == again
    assert door.get(f"/models/{made['id']}") == made
    assert door.get("/models/sim/org/big:1") == made
    assert made in door.get("/models")["items"]


def test_a_routes_life_is_told_from_its_first_version(door: Door) -> None:
    made = door.post(
        "/routes",
        {
            "name": "mail",
            "incumbent": "sim/base",
            "fallbacks": ["sim/equal", {"target": "sim/better", "capable": True}],
            "suites": [{"suite": "colours"}],
            "stakes": "high",
            "keep_warm_bps": 100,
            "description": "Answers mail",
        },
    )

    assert made["version"] == 1
    assert made["settings"]["capable"] == made["fallbacks"][1:]
    assert made["settings"]["keep_warm_bps"] == 100
    assert made.pop("faults") == []
    assert door.get("/routes/mail") == made
    assert [route["name"] for route in door.get("/routes")["items"]] == ["chat", "mail"]
    [record] = door.get("/routes/mail/history")["items"]
    assert (record["kind"], record["actor"]) == ("baseline", "ada")


def test_a_rollback_brings_the_incumbent_before_back(door: Door) -> None:
    world = door.world
    before = door.get("/routes/chat")["incumbent"]
    promote(world)
    served = door.get("/routes/chat")["incumbent"]
    assert served != before
    assert door.get("/proposals")["items"][0]["serves"] is True

    seen = {"reason": "complaints", "version": door.get("/routes/chat")["version"]}
    older = {**seen, "version": seen["version"] - 1}
    stale = door.send("POST", "/routes/chat/rollback", json=older, role="approver")
    assert error_of(stale, 409)["type"] == "StaleWrite"
    after = door.post("/routes/chat/rollback", seen, role="approver")

    assert after["incumbent"] == before
    [proposal] = door.get("/proposals")["items"]
    assert (proposal["phase"], proposal["serves"]) == ("promoted", False)
    assert door.get(f"/proposals/{proposal['id']}") == proposal
    diff = door.get("/routes/chat/diff")
    assert diff["changes"] == {"incumbent": {"before": served, "after": before}}
    assert door.get("/routes/chat/diff?from=1&to=1")["changes"] == {}
    assert error_of(door.send("GET", "/routes/chat/diff?to=99"), 404)["type"] == "NotFound"


def promote(world: SmallInstallation) -> None:
    proposal = in_canary(world)
    for _ in range(60):
        world.feed()
        world.run_once()
    assert not world.get(proposal.id).open


def test_a_run_by_hand_is_queued_worked_and_its_samples_paged(door: Door) -> None:
    run = door.post(
        "/evals", {"suite": "colours", "target": "sim/base", "items": 7}, role="proposer"
    )
    assert run["state"] == "queued"
    door.world.run_once()

    shown = door.get(f"/evals/{run['id']}")
    assert (shown["run"]["state"], shown["samples"]) == ("done", 7)
    first = door.get(f"/evals/{run['id']}/samples?limit=5")
    rest = door.get(f"/evals/{run['id']}/samples?limit=5&after={first['next']}")
    assert (len(first["items"]), len(rest["items"]), rest["total"]) == (5, 2, 7)
    positions = [item["position"] for item in first["items"] + rest["items"]]
    assert positions == list(range(7))
    assert [run["id"] for run in door.get("/evals?state=done")["items"]] == [run["id"]]
    assert door.get("/evals?state=failed")["total"] == 0


@pytest.mark.req("A7", "F5")
def test_a_proposal_is_created_evaluated_approved_and_its_verdict_shown(careful: Door) -> None:
    wish = {"route": "chat", "candidate": "sim/better", "reason": "cheaper"}
    made = careful.post("/proposals", wish, role="proposer")
    assert (made["phase"], made["proposer"]) == ("proposed", "ann")
    compared = careful.get(f"/proposals/{made['id']}/comparison")
    assert compared["verdict"] is None
    assert compared["candidate_figures"]["cost_usd_per_1000"] is None
    after = careful.world.until_decided(made["id"])

    compared = careful.get(f"/proposals/{made['id']}/comparison")
    assert compared["suites"][0]["candidate_samples"] > 0
    verdict = careful.get(f"/verdicts/{after.verdict}")
    assert verdict == compared["verdict"]
    assert (verdict["verdict"], verdict["words"]) == ("passed", "PASSED")
    body = {"verdict": after.verdict, "reason": "looks right"}
    approved_ = careful.post(f"/proposals/{made['id']}/approve", body, role="approver")
    assert approved_["approver"] == "ben"
    careful.world.run_once()
    assert careful.get(f"/proposals/{made['id']}")["phase"] == "canary"
    assert careful.get("/proposals?open=true&route=chat")["total"] == 1


def test_a_proposal_can_be_rejected_with_a_reason_and_only_with_one(careful: Door) -> None:
    waiting = awaiting_approval(careful.world)

    for words in ({}, {"reason": " "}):
        path = f"/proposals/{waiting.id}/reject"
        error_of(careful.send("POST", path, json=words, role="approver"), 422)
    said = {"reason": "not this month"}
    after = careful.post(f"/proposals/{waiting.id}/reject", said, role="approver")

    assert after["phase"] == "rejected"
    assert "not this month" in after["closed_because"]


def test_a_proposal_can_be_cancelled_without_a_body(door: Door) -> None:
    wish = {"route": "chat", "candidate": "sim/better"}
    made = door.send("POST", "/proposals", json=wish, role="proposer").json()
    after = door.send("POST", f"/proposals/{made['id']}/cancel", role="proposer")
    assert after.json()["phase"] == "cancelled"


def test_a_canary_is_moved_with_a_reason_alone(door: Door) -> None:
    in_canary(door.world)
    for verb in ("pause", "resume", "advance", "promote", "abort", "finish"):
        for words in ({}, {"reason": " "}):
            error_of(door.send("POST", f"/canaries/chat/{verb}", json=words), 422)
    assert door.get("/canaries/chat")["rollout"]["state"] == "waiting"


def test_a_canary_is_shown_paused_resumed_and_aborted(door: Door) -> None:
    assert "no canary yet" in error_of(door.send("GET", "/canaries/chat"), 404)["message"]
    in_canary(door.world)
    door.world.feed(blocks=2)

    [listed] = door.get("/canaries")["items"]
    shown = door.get("/canaries/chat")
    assert listed == shown
    assert shown["action"]["exposures"] == 2
    states = [
        door.post(f"/canaries/chat/{verb}", {"reason": "look"}, role="approver")["state"]
        for verb in ("pause", "resume", "abort")
    ]
    assert states == ["paused", "waiting", "rolled_back"]
    assert door.get("/canaries")["items"] == []
    assert door.get("/canaries/chat")["rollout"]["state"] == "rolled_back"
    gone = door.send("POST", "/canaries/chat/pause", json={"reason": "look"})
    assert error_of(gone, 404)["type"] == "NotFound"


@pytest.mark.req("A4", "A7")
def test_a_chain_is_put_whole_and_shows_its_evidence(door: Door) -> None:
    link = {"target": "sim/equal", "capable": True}
    wanted = {"fallbacks": [link], "reason": "an outage last week"}
    refused = error_of(door.send("PUT", "/routes/chat/fallbacks", json=wanted), 409)
    assert refused["type"] == "ProofRefused"

    waiver = {"reason": "no time to measure it", "for_s": 86_400}
    wanted["fallbacks"] = [link | {"waiver": waiver}]
    answer = door.send("PUT", "/routes/chat/fallbacks", json=wanted)
    assert answer.status_code == 200
    [entry] = answer.json()["items"]
    assert (entry["capable"], entry["evidence"]) == (True, "waiver")
    assert (entry["waiver"]["author"], entry["waiver"]["reason"]) == ("ada", waiver["reason"])
    assert door.get("/routes/chat/fallbacks")["items"] == [entry]
    assert door.get("/routes/chat")["fallbacks"] == [entry["target"]["id"]]

    changed = door.send("PATCH", "/routes/chat", json={"stakes": "high", "keep_warm_bps": 100})
    settings = changed.json()["settings"]
    assert (settings["stakes"], settings["keep_warm_bps"]) == ("high", 100)
    assert settings["capable"] == [entry["target"]["id"]]
    (suite,) = settings["suites"]
    assert (suite["suite"], suite["role"], suite["weight"]) == ("colours", "primary", 1.0)
    made = {"name": "looks", "incumbent": "sim/base", "overrides": {"image": "chat"}}
    assert door.post("/routes", made)["settings"]["overrides"] == {"image": "chat"}
    changed = door.send("PATCH", "/routes/chat", json={"overrides": {"vision": "looks"}})
    assert changed.json()["settings"]["overrides"] == {"vision": "looks"}
    assert door.get("/routes/chat")["settings"]["overrides"] == {"vision": "looks"}
    own = {"commit": "whole", "on_bad_event": "skip", "first_token_timeout_s": 60}
    changed = door.send("PATCH", "/routes/chat", json=own)
    assert changed.json()["settings"].items() >= own.items()
    changed = door.send("PATCH", "/routes/chat", json={"first_token_timeout_s": 0})
    assert changed.json()["settings"]["first_token_timeout_s"] is None
    weekly = {"models": ["sim/bass"], "every": "0 3 * * 1", "budget_usd": 5.0}
    changed = door.send("PATCH", "/routes/chat", json={"candidates": weekly})
    *_, fault = changed.json()["faults"]
    assert "route chat: sim/bass selects no model now" in fault
    left_out = {"name": "plain", "incumbent": "sim/base", "stakes": None, "suites": None}
    plain = door.post("/routes", {**left_out, "first_token_timeout_s": 0})["settings"]
    assert plain == door.post("/routes", {"name": "bare", "incumbent": "sim/base"})["settings"]
    for name, status in {"nowhere": 404, "chat": 422}.items():
        bad_route = {"overrides": {"vision": name}}
        assert door.send("PATCH", "/routes/chat", json=bad_route).status_code == status
    wrong: tuple[dict[str, object], ...] = (
        {"overrides": {"sound": "looks"}},
        {"keep_warm_bps": 1001},
        {"stakes": "huge"},
        {"capable": []},
        {"commit": "half"},
        {"first_byte_timeout_s": -1},
    )
    for bad in wrong:
        assert door.send("PATCH", "/routes/chat", json=bad).status_code == 422


def test_a_key_is_shown_once_works_and_is_revoked(door: Door) -> None:
    made = door.post("/keys", {"name": "carl", "role": "viewer"})
    name, bearer = made["key"]["id"], {"authorization": f"Bearer {made['text']}"}
    assert door.send("GET", "/routes", headers=bearer).status_code == 200

    assert made["text"] not in door.send("GET", "/keys").text
    gone = door.send("DELETE", f"/keys/{name}")
    assert (gone.status_code, gone.content) == (204, b"")

    assert door.send("GET", "/routes", headers=bearer).status_code == 401
    [listed] = [key for key in door.get("/keys")["items"] if key["id"] == name]
    assert listed["revoked_at"]
    assert error_of(door.send("DELETE", "/keys/key_none"), 404)["type"] == "NotFound"


def test_a_keys_limits_are_replaced_as_a_whole(door: Door) -> None:
    limits = {"requests_per_min": 60, "budget_day_usd": 2}
    made = door.post("/keys", {"name": "app", "limits": limits})
    name = made["key"]["id"]
    assert made["key"]["limits"]["budget_day_usd"] == 2

    changed = door.send("PUT", f"/keys/{name}/limits", json={"tokens_per_min": 900}).json()
    assert (changed["limits"]["tokens_per_min"], changed["limits"]["budget_day_usd"]) == (
        900,
        None,
    )
    assert door.send("PUT", f"/keys/{name}/limits", json={}).json()["limits"] is None
    [listed] = [key for key in door.get("/keys")["items"] if key["id"] == name]
    assert listed["spent"]["day_usd"] == 0

    viewer = door.post("/keys", {"name": "vic", "role": "viewer"})["key"]["id"]
    refused = door.send("PUT", f"/keys/{viewer}/limits", json=limits)
    assert error_of(refused, 422)["type"] == "InputError"
    none = door.send("PUT", "/keys/key_none/limits", json=limits)
    assert error_of(none, 404)["type"] == "NotFound"
    below = door.send("PUT", f"/keys/{name}/limits", json={"requests_per_min": 0})
    assert below.status_code == 422


@pytest.mark.req("G3")
def test_a_keys_opt_outs_are_replaced_as_a_whole(door: Door) -> None:
    made = door.post("/keys", {"name": "clinic", "opt_outs": ["canary"]})["key"]
    assert made["opt_outs"] == ["canary"]

    for wanted in (["capture", "shadow"], []):
        body = {"opt_outs": wanted}
        changed = door.send("PUT", f"/keys/{made['id']}/opt-outs", json=body).json()
        assert sorted(changed["opt_outs"]) == wanted
    unknown = {"opt_outs": ["everything"]}
    assert door.send("PUT", f"/keys/{made['id']}/opt-outs", json=unknown).status_code == 422


def test_a_data_key_has_routes_and_opens_nothing_here(door: Door) -> None:
    made = door.post("/keys", {"name": "app", "routes": ["chat"]})
    assert made["text"].startswith("sk-sg-")
    assert made["key"]["routes"] == ["chat"]
    bearer = {"authorization": f"Bearer {made['text']}"}
    assert door.send("GET", "/routes", headers=bearer).status_code == 401
    both = {"name": "app", "role": "viewer", "routes": ["chat"]}
    assert error_of(door.send("POST", "/keys", json=both), 422)["type"] == "InputError"


def test_the_overview_puts_what_waits_for_a_person_first(careful: Door) -> None:
    careful.post("/routes", {"name": "a-quiet-one", "incumbent": "sim/base"})
    awaiting_approval(careful.world)
    shown: list[Mapping[str, object]] = careful.get("/overview")["items"]
    assert [route["waits_for_person"] for route in shown] == [True, False]


def test_suites_and_policies_are_listed_and_a_suite_that_does_not_load_says_why(
    door: Door,
) -> None:
    [suite] = door.get("/suites")["items"]
    assert (suite["name"], suite["items"], suite["error"]) == ("colours", 60, "")
    [policy] = door.get("/policies")["items"]
    assert policy["name"] == "default"
    (door.world.folder / "colours.jsonl").unlink()
    [suite] = door.get("/suites")["items"]
    assert suite["digest"] is None
    assert "colours.jsonl" in suite["error"]
