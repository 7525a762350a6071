from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.app.store.router_store import RouterStore
from harness.frame.errors import SnapshotInvalid
from harness.frame.people.access import OptOut
from harness.frame.people.limits import KeyLimits
from harness.gate.online.guardrails import CanaryJudge, ExposureRule, Guardrail
from harness.gate.suite_plan import SuiteRole
from harness.providers.models.capabilities import Capabilities
from harness.providers.target import Price, Provider, RequestPatch, Target
from harness.routing.route_settings import (
    OnContentPolicy,
    RequestKind,
    RouteSettings,
    RouteSuite,
    Stakes,
)
from harness.routing.table import Canary, KeyGrant, Route, RoutingTable, Snapshot
from router.access.front_door import bearer_key, find_grant
from router.frame.replies import encode_header_text
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.compiler import compile_snapshot
from router.snapshot.holder import (
    SnapshotHolder,
    load_snapshot,
    save_snapshot,
)
from tests.support.control.manual_clock import ManualClock
from tests.support.router.live_router import (
    KEY,
    SECRET,
    SwitchableStore,
    snapshot,
    switch_of,
)

URL = "http://127.0.0.1:1/v1"
UNTIL = ManualClock().now()
text = st.text(max_size=8)
numbers = st.integers(0, 10_000)
floats = st.floats(0, 1e6)
jsons = st.dictionaries(text, st.none() | st.integers() | st.text() | floats, max_size=3)
filled = st.text(min_size=1, max_size=8).filter(lambda name: bool(name.strip()))
targets = st.builds(
    Target,
    filled,
    filled,
    jsons,
    st.builds(RequestPatch, jsons, text, st.none() | jsons.filter(bool)),
)
rules = st.builds(
    ExposureRule,
    numbers,
    floats,
    floats,
    floats,
    floats,
    floats,
    st.dictionaries(st.sampled_from(Guardrail), floats, max_size=2),
    judge=st.none() | st.builds(CanaryJudge, text, text, max_usd=floats),
)
routes = st.builds(
    Route,
    text,
    numbers,
    text,
    st.none() | st.builds(Canary, text, numbers, text, text, rules),
    st.lists(text, max_size=2).map(tuple),
    st.builds(
        RouteSettings,
        description=text,
        stakes=st.sampled_from(Stakes),
        policy=text,
        suites=st.lists(
            st.builds(RouteSuite, text, st.sampled_from(SuiteRole)),
            max_size=2,
        ).map(tuple),
        total_timeout_s=floats,
        on_content_policy=st.sampled_from(OnContentPolicy),
        keep_warm_bps=numbers,
        side_effects=st.booleans(),
        capable=st.lists(text, max_size=2).map(tuple),
        data_class=text,
        task=text,
        overrides=st.dictionaries(st.sampled_from(RequestKind), text, max_size=2),
    ),
)
providers = st.builds(
    Provider,
    text,
    text,
    text,
    st.none() | text,
    st.dictionaries(text, text, max_size=2),
    st.dictionaries(text, st.builds(Price, floats, floats), max_size=2),
    st.lists(text, max_size=2).map(tuple),
    st.dictionaries(
        text,
        st.builds(Capabilities, *[st.booleans()] * 9, st.none() | numbers),
        max_size=2,
    ),
)
rates = st.none() | st.floats(1, 1e6)
dollars = st.none() | floats
limits = st.builds(KeyLimits, rates, rates, dollars, dollars, st.floats(0.01, 1))
snapshots = st.builds(
    Snapshot,
    st.builds(
        RoutingTable,
        numbers,
        st.lists(routes, max_size=3).map(lambda all_: {route.name: route for route in all_}),
        st.lists(targets, max_size=3).map(lambda all_: {target.id: target for target in all_}),
    ),
    st.lists(providers, max_size=2).map(
        lambda all_: {provider.name: provider for provider in all_}
    ),
    st.lists(
        st.builds(
            KeyGrant,
            text,
            text,
            st.frozensets(text),
            st.none() | limits,
            st.frozensets(st.sampled_from(OptOut)),
        ),
        max_size=2,
    ).map(tuple),
    text,
    switches=st.sampled_from(
        [
            (),
            (
                switch_of("provider:up"),
                switch_of("target:up/m", route="r", expires_at=UNTIL),
            ),
        ]
    ),
)


@pytest.mark.req("B11", "D3", "F3")
@given(snapshots)
def test_a_snapshot_comes_back_from_disk_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, found: Snapshot
) -> None:
    file = tmp_path_factory.getbasetemp() / "round.json"

    save_snapshot(found, file)

    assert load_snapshot(file) == found
    assert file.stat().st_mode & 0o077 == 0


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_file_is_never_served(
    tmp_path_factory: pytest.TempPathFactory,
    place: int,
    byte: int,
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.json"
    whole = snapshot(URL, weight_bps=100)
    save_snapshot(whole, file)
    data = bytearray(file.read_bytes())
    data[place % len(data)] = byte
    file.write_bytes(data)

    try:
        found = load_snapshot(file)
    except SnapshotInvalid:
        return
    assert found == whole


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":2}', b'{"format":1}'])
def test_a_file_that_is_no_snapshot_says_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "snapshot.json"
    file.write_bytes(content)

    with pytest.raises(SnapshotInvalid, match=r"snapshot\.json"):
        load_snapshot(file)


def holder(store: SwitchableStore, folder: Path) -> SnapshotHolder:
    return SnapshotHolder(cast("RouterStore", store), folder / "snapshot.json")


def test_a_new_revision_is_swapped_in(tmp_path: Path) -> None:
    store = SwitchableStore(snapshot(URL))
    held = holder(store, tmp_path)
    before = held.boot()

    store.put(snapshot(URL, weight_bps=100, revision=4))

    assert held.refresh()
    assert held.current is not before
    assert held.current
    assert held.current.revision == 4
    assert before.revision == 3
    assert not held.refresh()


@pytest.mark.req("F3")
def test_what_judges_schemas_is_loaded_before_a_revision_serves_that_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = holder(store := SwitchableStore(snapshot(URL)), tmp_path)
    served: list[int] = []

    def loaded() -> None:
        served.append(held.current.revision if held.current else 0)

    monkeypatch.setattr("router.snapshot.holder.matching.load_validator", loaded)
    held.boot()
    timed = ExposureRule(guardrails={Guardrail.LATENCY: 1.25})
    store.put(
        snapshot(
            URL,
            weight_bps=100,
            revision=4,
            rule=timed,
        )
    )
    held.refresh()
    assert served == []

    judged = ExposureRule(guardrails={Guardrail.JSON_VALIDITY: 1.0})
    store.put(
        snapshot(
            URL,
            weight_bps=100,
            revision=5,
            rule=judged,
        )
    )
    held.refresh()
    assert served == [4]

    store.away = True
    holder(store, tmp_path).boot()
    assert len(served) == 2


def broken(revision: int = 9) -> Snapshot:
    good = snapshot(URL, revision=revision)
    return replace(good, table=RoutingTable(revision, good.table.routes, {}))


@pytest.mark.req("F1")
def test_a_revision_that_does_not_validate_is_refused_whole(tmp_path: Path) -> None:
    store = SwitchableStore(snapshot(URL))
    held = holder(store, tmp_path)
    before = held.boot()

    store.put(broken())

    assert not held.refresh()
    assert held.current is before
    assert "names target" in held.refused
    assert load_snapshot(tmp_path / "snapshot.json").table.revision == 3
    store.put(snapshot(URL, revision=10))
    assert held.refresh()
    assert held.refused == ""


def test_without_a_database_the_disk_serves_and_is_called_stale(tmp_path: Path) -> None:
    store = SwitchableStore(snapshot(URL))
    holder(store, tmp_path).boot()
    store.away = True

    held = holder(store, tmp_path)

    assert held.boot().revision == 3
    assert held.stale
    store.away = False
    held.refresh()
    assert not held.stale


def test_without_database_and_disk_the_router_refuses_to_start(tmp_path: Path) -> None:
    held = holder(SwitchableStore(None), tmp_path)

    with pytest.raises(
        SnapshotInvalid,
        match=r"cannot start.*database is away.*No such file",
    ):
        held.boot()


@pytest.mark.parametrize("kind", ["unheard-of"])
def test_a_provider_of_another_protocol_is_refused_by_name(kind: str) -> None:
    good = snapshot(URL)
    providers = {"up": replace(good.providers["up"], kind=kind)}

    with pytest.raises(SnapshotInvalid, match=kind):
        compile_snapshot(replace(good, providers=providers))
    with pytest.raises(SnapshotInvalid, match="not configured"):
        compile_snapshot(replace(good, providers={}))


def test_a_name_cannot_break_a_header() -> None:
    assert encode_header_text("a/b\r\nx: y") == b"a/b%0D%0Ax: y"
    assert encode_header_text("sim/größe#1") == b"sim/gr%C3%B6%C3%9Fe#1"


def test_a_key_opens_what_the_current_snapshot_grants() -> None:
    serving = compile_snapshot(snapshot(URL))
    header = f"Bearer {KEY}".encode()

    def opened(header: bytes | None, serving: CompiledSnapshot) -> KeyGrant | None:
        return find_grant(bearer_key(header), serving, SECRET)

    assert opened(header, serving)
    assert opened(header.replace(b"Bearer", b"bearer"), serving)
    for wrong in (
        None,
        b"",
        b"Basic x",
        b"Bearer ",
        b"Bearer \xff",
        header + b"x",
    ):
        assert opened(wrong, serving) is None
    revoked = compile_snapshot(replace(snapshot(URL), keys=()))
    assert opened(header, revoked) is None
