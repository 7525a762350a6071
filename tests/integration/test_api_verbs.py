import pytest

from tests.support.site.management_api import (
    Door,
    awaiting_approval,
    error_of,
    in_canary,
)


def test_a_model_is_added_once_and_found_by_id_and_by_name(door: Door) -> None:
    wish = {
        "provider": "sim",
        "model": "org/big:1",
        "parameters": {"temperature": 0.5},
    }
    made = door.post("/models", wish, role="proposer")
    again = door.post("/models", wish, role="proposer")

    assert made.pop("unlisted") == again.pop("unlisted")
    assert made == again
    assert door.get(f"/models/{made['id']}") == made
    assert door.get("/models/sim/org/big:1") == made
    assert made in door.get("/models")["items"]


def test_a_proposal_can_be_rejected_with_a_reason_and_only_with_one(careful: Door) -> None:
    waiting = awaiting_approval(careful.world)

    for words in ({}, {"reason": " "}):
        path = f"/proposals/{waiting.id}/reject"
        error_of(
            careful.send(
                "POST",
                path,
                json=words,
                role="approver",
            ),
            422,
        )
    said = {"reason": "not this month"}
    after = careful.post(f"/proposals/{waiting.id}/reject", said, role="approver")

    assert after["phase"] == "rejected"
    assert "not this month" in after["closed_because"]


def test_a_proposal_can_be_cancelled_without_a_body(door: Door) -> None:
    wish = {"route": "chat", "candidate": "sim/better"}
    made = door.send(
        "POST",
        "/proposals",
        json=wish,
        role="proposer",
    ).json()
    after = door.send("POST", f"/proposals/{made['id']}/cancel", role="proposer")
    assert after.json()["phase"] == "cancelled"


def test_a_canary_is_moved_with_a_reason_alone(door: Door) -> None:
    in_canary(door.world)
    for verb in ("pause", "resume", "advance", "promote", "abort", "finish"):
        for words in ({}, {"reason": " "}):
            error_of(door.send("POST", f"/canaries/chat/{verb}", json=words), 422)
    assert door.get("/canaries/chat")["rollout"]["state"] == "waiting"


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
    assert (entry["waiver"]["author"], entry["waiver"]["reason"]) == (
        "ada",
        waiver["reason"],
    )
    assert door.get("/routes/chat/fallbacks")["items"] == [entry]
    assert door.get("/routes/chat")["fallbacks"] == [entry["target"]["id"]]

    changed = door.send(
        "PATCH",
        "/routes/chat",
        json={"stakes": "high", "keep_warm_bps": 100},
    )
    settings = changed.json()["settings"]
    assert (settings["stakes"], settings["keep_warm_bps"]) == ("high", 100)
    assert settings["capable"] == [entry["target"]["id"]]
    (suite,) = settings["suites"]
    assert (
        suite["suite"],
        suite["role"],
        suite["weight"],
    ) == (
        "colours",
        "primary",
        1.0,
    )
    made = {
        "name": "looks",
        "incumbent": "sim/base",
        "overrides": {"image": "chat"},
    }
    assert door.post("/routes", made)["settings"]["overrides"] == {"image": "chat"}
    changed = door.send("PATCH", "/routes/chat", json={"overrides": {"vision": "looks"}})
    assert changed.json()["settings"]["overrides"] == {"vision": "looks"}
    assert door.get("/routes/chat")["settings"]["overrides"] == {"vision": "looks"}
    own = {
        "commit": "whole",
        "on_bad_event": "skip",
        "comparable_vectors": True,
        "first_token_timeout_s": 60,
    }
    changed = door.send("PATCH", "/routes/chat", json=own)
    assert changed.json()["settings"].items() >= own.items()
    changed = door.send("PATCH", "/routes/chat", json={"first_token_timeout_s": 0})
    assert changed.json()["settings"]["first_token_timeout_s"] is None
    weekly = {
        "models": ["sim/bass"],
        "every": "0 3 * * 1",
        "budget_usd": 5.0,
    }
    changed = door.send("PATCH", "/routes/chat", json={"candidates": weekly})
    *_, fault = changed.json()["faults"]
    assert "route chat: sim/bass selects no model now" in fault
    left_out = {
        "name": "plain",
        "incumbent": "sim/base",
        "stakes": None,
        "suites": None,
    }
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


def test_a_keys_limits_are_replaced_as_a_whole(door: Door) -> None:
    limits = {"requests_per_min": 60, "budget_day_usd": 2}
    made = door.post("/keys", {"name": "app", "limits": limits})
    name = made["key"]["id"]
    assert made["key"]["limits"]["budget_day_usd"] == 2

    changed = door.send("PUT", f"/keys/{name}/limits", json={"tokens_per_min": 900}).json()
    assert (
        changed["limits"]["tokens_per_min"],
        changed["limits"]["budget_day_usd"],
    ) == (900, None)
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


def test_suites_and_policies_are_listed_and_a_suite_that_does_not_load_says_why(
    door: Door,
) -> None:
    [suite] = door.get("/suites")["items"]
    assert (
        suite["name"],
        suite["items"],
        suite["error"],
    ) == (
        "colours",
        60,
        "",
    )
    [policy] = door.get("/policies")["items"]
    assert policy["name"] == "default"
    (door.world.folder / "colours.jsonl").unlink()
    [suite] = door.get("/suites")["items"]
    assert suite["digest"] is None
    assert "colours.jsonl" in suite["error"]


def test_a_rollback_of_another_version_is_refused(door: Door) -> None:
    other = {
        "reason": "complaints",
        "version": door.get("/routes/chat")["version"] + 1,
    }
    refused = door.send(
        "POST",
        "/routes/chat/rollback",
        json=other,
        role="approver",
    )
    assert error_of(refused, 409)["type"] == "StaleWrite"
