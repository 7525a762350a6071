"""Portkey's configuration becomes a route here, and every key of it is accounted for."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.app.config_import import convert_file
from harness.domain.adoption.conversion import WHOLE_FILE, Conversion, SourceConfig
from harness.domain.adoption.portkey_config import convert_portkey
from harness.domain.adoption.portkey_settings import INHERITED, REASONS, ROUTE_SETTINGS
from tests.unit.test_config_litellm import leaves, loaded, notes

pytestmark = pytest.mark.req("G1")
KEY = "sk-proj-abcdefghijklmnopqrstuvwx1234567890"
EXAMPLE = {
    "strategy": {"mode": "loadbalance", "on_status_codes": [429]},
    "retry": {"attempts": 3, "on_status_codes": [429, 503]},
    "cache": {"mode": "simple"},
    "request_timeout": 30_000,
    "targets": [
        {"provider": "openai", "api_key": KEY, "weight": 0.3,
         "override_params": {"model": "gpt-4o", "temperature": 0}},
        {"virtual_key": "anthropic-prod-a1", "weight": 0.6,
         "overrideParams": {"model": "claude-sonnet-4-5"}},
        {"strategy": {"mode": "fallback"}, "weight": 0.1, "override_params": {"max_tokens": 9},
         "targets": [
             {"provider": "azure-openai", "resource_name": "res", "deployment_id": "four"},
             {"provider": "@team-x/foo"},
             {"provider": "groq"},
             {"provider": "mystery", "override_params": {"model": "m"}},
         ]},
    ],
    "newest_feature": True,
}  # fmt: skip


def converted(values: dict[str, object], name: str = "support") -> Conversion:
    return convert_portkey(SourceConfig(name, values, {}))


def test_the_heaviest_target_is_the_incumbent_and_overrides_are_patches(
    tmp_path: Path,
) -> None:
    file = tmp_path / "support.json"
    file.write_text(json.dumps(EXAMPLE, indent="\t"))
    conversion = convert_file("portkey", file, {})
    settings = loaded(conversion, tmp_path)

    route = settings.routes["support"]
    chain = [target.target for target in (route.incumbent, *route.fallbacks)]
    assert [target.name.split("#")[0] for target in chain] == [
        "anthropic/claude-sonnet-4-5",
        "openai/gpt-4o",
        "azure-openai/four",
    ]
    assert chain[1].request_patch.parameters == {"temperature": 0}
    assert chain[2].request_patch.parameters == {"max_tokens": 9}
    assert (
        settings.providers["azure-openai"].api_base == "https://res.openai.azure.com/openai/v1"
    )
    assert route.settings.total_timeout_s == 30
    assert settings.router.retry.tries_per_target == 4
    assert KEY not in f"{conversion}"
    assert settings.providers["openai"].api_key_env == "OPENAI_API_KEY"


def test_what_was_not_taken_over_has_a_reason() -> None:
    report = notes(converted(dict(EXAMPLE)))

    below = "targets.2.targets"
    assert report["targets.1.virtual_key"][1].endswith("stored at Portkey. Check it")
    assert "stored at Portkey" in report[f"{below}.1"][1]
    assert report[f"{below}.2"][1].startswith("names no model")
    assert report[f"{below}.3"] == ("not taken", "Swapgate has no provider 'mystery'")
    assert report["newest_feature"] == ("not taken", "Swapgate does not know this key")
    assert report["strategy.mode"][0] == "changed"


# As Portkey's page on conditional routing writes them.
CONDITIONAL = {
    "strategy": {
        "mode": "conditional",
        "conditions": [
            {"query": {"params.model": {"$eq": "fastest"}}, "then": "small"},
            {"query": {"$or": [{"params.model": "smartest"},
                               {"params.model": {"$in": ["best", "o1"]}}]}, "then": "group"},
            {"query": {"metadata.user_plan": {"$eq": "paid"}}, "then": "group"},
            {"query": {"url.pathname": {"$eq": "/v1/embeddings"}}, "then": "vectors"},
            {"query": {"metadata.app_name": {"$regex": "my_app"}}, "then": "small"},
            {"query": {"params.temperature": {"$gt": 0.7}}, "then": "group"},
            {"query": {"params.model": {"$in": ["new", "fastest"]}}, "then": "group"},
            {"query": {"metadata.user_plan": {"$eq": "trial"}}, "then": "group"},
            {"query": {"params.model": {"$eq": "x"}}, "then": "nobody"},
        ],
        "default": "small",
    },
    "request_timeout": 20_000,
    "targets": [
        {"name": "group", "strategy": {"mode": "loadbalance"}, "targets": [
            {"provider": "groq", "weight": 0.2, "override_params": {"model": "llama"}},
            {"provider": "anthropic", "weight": 0.8,
             "override_params": {"model": "claude-3.5-sonnet"}},
        ]},
        {"name": "small", "provider": "openai", "override_params": {"model": "gpt-4o-mini"}},
        {"name": "vectors", "provider": "openai",
         "override_params": {"model": "text-embedding-3-small"}},
    ],
}  # fmt: skip


def test_conditions_on_the_model_a_metadata_value_or_embeddings_choose_the_routes_of_targets(
    tmp_path: Path,
) -> None:
    conversion = converted(dict(CONDITIONAL))
    settings = loaded(conversion, tmp_path)

    chains = {
        name: [target.target.name for target in (route.incumbent, *route.fallbacks)]
        for name, route in settings.routes.items()
    }
    small, group = ["openai/gpt-4o-mini"], ["anthropic/claude-3.5-sonnet", "groq/llama"]
    assert chains == {
        "support": small,
        "support-small": small,
        "fastest": small,
        "support-group": group,
        "smartest": group,
        "best": group,
        "o1": group,
        "support-vectors": ["openai/text-embedding-3-small"],
    }
    assert settings.routes["support-group"].settings.task == "user_plan=paid"
    overrides = settings.routes["support"].settings.overrides
    assert {kind.value: route for kind, route in overrides.items()} == {
        "embedding": "support-vectors"
    }
    assert {route.settings.total_timeout_s for route in settings.routes.values()} == {20}
    report = notes(conversion)
    what = {
        index: report[f"strategy.conditions.{index}"]
        for index in range(len(CONDITIONAL["strategy"]["conditions"]))  # type: ignore[index]
    }
    assert [index for index, (outcome, _) in what.items() if outcome == "changed"] == [
        0,
        1,
        2,
        3,
    ]
    assert "`x-swapgate-task: user_plan=paid`" in what[2][1]
    assert what[4][1].endswith("clients that it means name the route support-small themselves")
    assert what[5][1].startswith("a route is chosen by `model`")
    assert what[6][1] == "there is a route 'fastest' already"
    assert what[7][1].startswith("a route has one task")
    assert what[8][1].startswith("names no target")
    assert report["strategy.default"] == ("taken", "route support: its own targets")


KEYS = sorted({*INHERITED, *REASONS, *ROUTE_SETTINGS, "weight", "strategy", "newKey", "name"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 900) | st.sampled_from(["openai", "@a/b", "m"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["model", "mode", "attempts", "x"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)
NODES = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5),
    lambda inner: st.tuples(
        st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3), st.lists(inner, max_size=3)
    ).map(lambda node: {**node[0], "targets": node[1]}),
    max_leaves=4,
)


@given(values=NODES)
def test_every_key_of_any_file_is_accounted_for(values: dict[str, object]) -> None:
    noted = {note.key for note in converted(values).notes}

    for leaf in leaves(values):
        parts = leaf.split(".")
        above = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        assert noted & {*above, WHOLE_FILE} or not leaf, leaf
