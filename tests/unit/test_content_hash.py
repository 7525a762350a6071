import pytest

from evals.scorers.judged import first_letter
from evals.sim.simulated_model import random_bits
from harness.frame.plain_data import digest, hash_content, short_hash
from harness.frame.signing.keyring import key_id
from harness.gate.suite_plan import shuffle_items, texts_fingerprint
from harness.providers.models.capabilities import Endpoint
from router.frame.body import read_request
from router.request.client_directives import sticky_key


def test_a_value_has_the_hash_of_its_canonical_json() -> None:
    assert digest({"b": [1, None], "a": "ä"}) == hash_content('{"a":"ä","b":[1,null]}')
    assert (
        hash_content("abc")
        == hash_content(b"abc")
        == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    )
    with pytest.raises(ValueError, match="Out of range"):
        digest(float("nan"))


def test_a_short_hash_is_the_same_in_every_process() -> None:
    assert int.from_bytes(short_hash("user:alice")) == 17_189_974_838_173_815_903
    assert len(short_hash("\ud800", 4)) == 4


def test_what_is_drawn_and_named_by_hashes_keeps_its_value() -> None:
    assert shuffle_items(["a", "b", "ä", "d"], 7) == ("a", "ä", "d", "b")
    assert "".join(first_letter(str(n), 7) for n in range(12)) == "BBBBABABABAB"
    assert random_bits("ä", 1, 2.5) == 9_806_025_147_425_248_543
    assert texts_fingerprint(["Hello, there!", "\ud800", "ü"]) == "btWJR2Cfsw7dE5/Zc16K"
    assert key_id(b"public") == "efa1f375d76194fa"
    body = '{"model": "m", "messages": [{"role": "user", "content": "hé"}]}'.encode()
    sticky = sticky_key(read_request(body, Endpoint.CHAT), None, "k")
    assert sticky == "opening:58f3b19eba119bb83cc1a079e293ccad"
