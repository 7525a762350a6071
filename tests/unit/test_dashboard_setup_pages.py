import errno
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import current_user, page_frame
from dashboard.views import keys as keys_page
from dashboard.views import provider_dialogs as providers_page
from dashboard.views import suite_dialogs as suites_page
from dashboard.views.providers import _build_model_row, price_cell
from harness.app.installation import CONFIG_VARIABLE
from harness.app.suite_import import UPLOAD_SCORERS
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.errors import ConfigError
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.people.limits import KeyLimits
from harness.frame.runtime.encryption import new_key
from harness.operations import keys, queries
from harness.operations.queries import list_keys
from harness.proposals import fallback_chain
from harness.providers.kinds import ProviderGroup
from harness.providers.models.capabilities import Capabilities
from harness.providers.models.catalogue import (
    COLUMNS,
    Ability,
    CatalogueChange,
    CatalogueEntry,
    build_catalogue,
    find_price_origin,
)
from harness.providers.models.model_ends import KnownEnd, ModelEnd, describe_end
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.registry import credentials, registered_providers, targets
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Price, Provider, Target
from harness.routing.control import freezes, routes
from harness.routing.reports.matrix import MatrixModel, build_matrix
from harness.routing.route_settings import RouteSettings, RouteSuite, Stakes, StreamCommit
from tests.support.browser.dashboard_data import ANA, configured
from tests.unit.test_dashboard_page_states import (
    dialog,
    fill,
    forget,
    page_app,
    text,
)

SECRET = "sk-test-do-not-show-1234567890"  # noqa: S105 - what must be hidden

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    forget()
    config = configured(tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    yield config
    forget()


def furnish(many: int = 1) -> None:
    ctx = page_frame.context()
    secret = page_frame.installation().secret
    targets.put_provider(ctx, ANA, Provider("sim", "sim", "http://127.0.0.1:9/v1"))
    for model in ("base", "backup"):
        targets.add_target(ctx, ANA, Target("sim", model))
    settings = RouteSettings(suites=(RouteSuite("tickets"),))
    for number in range(many):
        routes.create_route(
            ctx,
            ANA,
            f"chat-{number}",
            "sim/base",
            fallbacks=["sim/backup"],
            settings=settings,
        )
        limits = KeyLimits(budget_day_usd=5)
        keys.create_key(
            ctx,
            SYSTEM,
            f"client-{number}",
            secret=secret,
            limits=limits,
        )


def act_as(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    role: Role,
) -> Actor:
    installation = page_frame.installation()
    _, text = keys.create_key(
        installation.context,
        SYSTEM,
        name,
        secret=installation.secret,
        role=role,
    )
    actor = keys.authenticate(installation.store, text, secret=installation.secret)
    monkeypatch.setattr(current_user, "signed_in", lambda: actor)
    monkeypatch.setattr(current_user, "_find_actor", lambda: (actor, ""))
    return actor


def shown(page: str) -> AppTest:
    app = page_app(page).run()
    assert not app.exception
    return app


@pytest.mark.req("E4")
def test_a_provider_is_added_and_asked_at_once_and_its_key_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWAPPROOF_ENCRYPTION_KEYS", new_key())
    act_as(monkeypatch, "ada", Role.ADMIN)
    app = dialog("providers.add_provider()", "page_frame.show_done_message()")
    fill(
        app,
        {
            "new-kind": "vllm",
            "new-address-vllm": "http://127.0.0.1:9/v1",
            "new-name-vllm": "",
        },
    )
    assert app.button(key="new-now-vllm").disabled
    assert "Name and address are needed." in text(app)
    fill(
        app,
        {"new-name-vllm": "house", "new-key-vllm": SECRET},
        "new-now-vllm",
    )
    assert not app.exception

    said = text(shown("providers"))
    assert "<b>house</b> is unhealthy" in said
    assert "Connection refused" in said
    assert SECRET not in said
    app.button(key="new-now-vllm").click().run()
    assert "there is a provider 'house' already" in text(app)

    app = dialog("providers.change_address('house')")
    assert "This is its address already." in text(app)
    app.text_input(key="base-address-house").set_value("http://127.0.0.1:10/v1").run()
    assert app.button(key="base-now-house").disabled
    fill(app, {"base-why-house": "another machine"}, "base-now-house")
    moved = registered_providers.get_provider(page_frame.context(), "house")
    assert moved.api_base == "http://127.0.0.1:10/v1"


@pytest.mark.req("E4")
def test_a_model_is_added_and_one_that_its_provider_does_not_list_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ctx = page_frame.context()
    registered_providers.change_provider(ctx, SYSTEM, "openai", ProviderChange())
    with ctx.store.write() as tx:
        provider = Providers(tx).all()["openai"]
        listed = DiscoveredModel("openai", "gpt-4o-mini", provider.api_base, ctx.clock.now())
        DiscoveredModels(tx).replace("openai", [listed])
    # The dialog offers the listed models, and those that the configuration names.
    targets.put_provider(ctx, SYSTEM, replace(provider, models={"gpt-4o": Capabilities()}))
    act_as(monkeypatch, "pat", Role.PROPOSER)
    app = dialog("providers.add_model('openai')")
    assert "Choose a model first." in text(app)
    assert app.button(key="model-now-openai").disabled
    fill(app, {"model-of-openai": "gpt-4o"}, "model-now-openai")
    with page_frame.context().store.read() as tx:
        [made] = [target for target in Targets(tx).all().values() if target.model == "gpt-4o"]
    name, why = app.session_state[providers_page.UNLISTED]
    assert name == made.name
    assert why == "openai does not list gpt-4o among 1; did you mean 'gpt-4o-mini'?"
    assert made.name in page_frame.model_names(page_frame.context())


@pytest.mark.req("E4")
def test_keys_of_a_provider_are_added_replaced_and_removed_and_accounts_get_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWAPPROOF_ENCRYPTION_KEYS", new_key())
    ctx = page_frame.context()
    registered_providers.change_provider(
        ctx, ANA, "house", ProviderChange("vllm", {"api_base": "http://127.0.0.1:9/v1"})
    )
    act_as(monkeypatch, "ada", Role.ADMIN)
    app = dialog("providers.change_keys('house')")

    def names() -> list[str]:
        return [key.name for key in credentials.get_credentials(ctx, "house").stored]

    def store(value: str) -> None:
        fill(app, {"key-value-house": value}, "key-now-house")
        assert not app.exception
        app.run()

    store(SECRET)
    assert names() == ["default"]
    fill(app, {"key-name-house": "Add another key", "key-new-house": "spare"})
    app.checkbox(key="key-first-house").check()
    store(SECRET + "2")
    assert names() == ["spare", "default"]
    fill(app, {"key-name-house": "spare", "key-overlap-house": 24.0})
    store(SECRET + "3")
    assert names() == ["spare", "spare.old", "default"]
    assert "<b>default</b>" in text(app)
    assert SECRET not in text(app)

    app.session_state["keys-act-house"] = "Remove"
    app.run()
    app.selectbox(key="key-gone-name-house").select("default").run()
    assert app.button(key="key-gone-now-house").disabled
    fill(app, {"key-gone-sure-house": "default"}, "key-gone-now-house")
    assert names() == ["spare", "spare.old"]
    [event] = [e for e in queries.read_audit_events(ctx) if e.action == "credential.remove"]
    assert (event.actor, event.details["keys"]) == ("ada", ["default"])

    monkeypatch.setitem(cast("dict[str, str]", ctx.environ), "HOUSE_KEY", SECRET)
    registered_providers.change_provider(
        ctx, ANA, "house", ProviderChange("vllm", {"api_key_env": "HOUSE_KEY"})
    )
    shown = text(dialog("providers.change_keys('house')"))
    assert "HOUSE_KEY in the environment of this process" in shown
    assert "To take it away, unset HOUSE_KEY" in shown

    registered_providers.change_provider(
        ctx, ANA, "github_copilot", ProviderChange("github_copilot")
    )
    for opened in (
        "providers.change_keys('github_copilot')",
        "providers.add_provider()",
    ):
        app = dialog(opened)
        assert "swapproof provider key login github_copilot" in [
            code.value for code in app.code
        ]
        assert not [
            field for field in app.text_input if field.key == "key-value-github_copilot"
        ]


def test_a_client_key_is_shown_to_its_creator_until_it_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    furnish()
    ada = act_as(monkeypatch, "ada", Role.ADMIN)
    app = dialog("keys.show_new_key()", "keys.create_client_key()")
    fill(app, {"client-name": "Client-0 "}, "client-now")
    assert "there is a client key 'client-0'" in text(app)
    fill(
        app,
        {"client-name": "acme", "client-budget_day_usd": 7.5},
        "client-now",
    )
    made = app.code[0].value
    found = keys.authenticate_data_key(
        page_frame.context().store,
        made,
        secret=page_frame.installation().secret,
    )
    assert (found.name, found.limits) == (
        "acme",
        KeyLimits(budget_day_usd=7.5),
    )
    assert found.created_with == ada.key

    act_as(monkeypatch, "eve", Role.ADMIN)
    app.run()
    assert keys_page.NEW_KEY not in app.session_state
    assert not app.code


def test_rates_stand_at_clients_and_providers(house: Path) -> None:
    house.write_text(
        "home: state\nproviders:\n  sim:\n    kind: sim\n    api_base: http://127.0.0.1:9/v1\n"
        "    eval_limits: {requests_per_min: 30, max_concurrent: 4}\n",
        encoding="utf-8",
    )
    forget()
    furnish()
    installation = page_frame.installation()
    limits = KeyLimits(requests_per_min=10, tokens_per_min=1000)
    keys.create_key(
        installation.context,
        SYSTEM,
        "acme",
        secret=installation.secret,
        limits=limits,
    )
    said = text(shown("keys"))
    assert "10 requests / min<br>1,000 tokens / min" in said
    assert said.count("not limited") == 1
    assert "Evals: at most 30 requests / min, 4 at a time" in text(shown("providers"))


def test_a_clients_limits_are_changed_and_its_key_revoked_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    furnish()
    act_as(monkeypatch, "ada", Role.ADMIN)
    app = dialog(
        "from harness.operations.queries import list_keys",
        "live = [key for key in list_keys(ctx) if key.revoked_at is None]",
        "keys.change_key(kept('live', live))",
    )
    [client] = [key for key in list_keys(page_frame.context()) if key.name == "client-0"]
    app.selectbox(key="chosen-key").select(client.id).run()
    assert "These are its limits already." in text(app)
    fill(
        app,
        {f"limit-budget_day_usd-{client.id}": 9.5},
        f"limit-now-{client.id}",
    )
    [changed] = [key for key in list_keys(page_frame.context()) if key.id == client.id]
    assert changed.limits == KeyLimits(budget_day_usd=9.5)
    # The dialog still shows what it was opened with.
    fill(
        app,
        {f"limit-budget_day_usd-{client.id}": 900},
        f"limit-now-{client.id}",
    )
    assert "another person changed this key's limits" in text(app)

    app.session_state[f"act-{client.id}"] = "Revoke"
    app.run()
    assert app.button(key=f"revoke-now-{client.id}").disabled
    fill(
        app,
        {f"revoke-sure-{client.id}": "client-0"},
        f"revoke-now-{client.id}",
    )
    [gone] = [key for key in list_keys(page_frame.context()) if key.id == client.id]
    assert gone.revoked_at is not None


@pytest.mark.req("F5")
def test_an_admin_declares_who_somebody_is_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act_as(monkeypatch, "ada", Role.ADMIN)
    installation = page_frame.installation()
    ctx = installation.context
    secret = installation.secret
    keys.create_key(
        ctx,
        SYSTEM,
        "ada phone",
        secret=secret,
        role=Role.VIEWER,
    )

    app = dialog(
        "from harness.operations import keys as known",
        "from harness.frame.people.access import OPERATOR",
        "keys.declare(known.list_people(ctx, OPERATOR))",
    )
    assert app.button(key="declaration-now").disabled
    fill(
        app,
        {
            "declaration-name": "ada phone",
            "declaration-person": "ada",
            "declaration-why": "her second one",
        },
        "declaration-now",
    )
    said = text(shown("keys"))
    assert "the same as ada<br>" in said
    assert "her second one" in said


def test_a_kill_switch_says_what_it_changes_and_asks_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    furnish(2)
    act_as(monkeypatch, "ben", Role.APPROVER)
    app = dialog("route_holds.throw('chat-0')")
    app.selectbox(key="switch-force-chat-0").select("target:sim/backup").run()
    assert "<b>1 route</b> within 2 s: chat-0." in text(app)
    assert app.button(key="switch-now-chat-0").disabled
    fill(app, {"switch-why-chat-0": "base is down"}, "switch-now-chat-0")
    assert not app.exception

    [switch] = freezes.list_live_switches(page_frame.context())
    assert (switch.route, switch.reason, switch.actor) == (
        "chat-0",
        "base is down",
        "ben",
    )
    page = shown("routes")
    assert f"open-lift-switch-{switch.id}" in [button.key for button in page.button]


@pytest.mark.req("A7")
def test_a_chain_takes_no_new_model_without_evidence_or_a_waiver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    furnish()
    targets.add_target(page_frame.context(), ANA, Target("sim", "other"))
    act_as(monkeypatch, "ada", Role.ADMIN)
    # A dialog keeps what it was opened with.
    app = dialog("routes.edit_chain(kept('view', route_timeline.load_route(ctx, 'chat-0')))")
    assert "This is the chain already." in text(app)
    app.multiselect(key="chain-models-chat-0").set_value(["sim/other", "sim/backup"]).run()
    assert "New in the chain: <b>sim/other</b>" in text(app)
    fill(app, {"chain-why-chat-0": "a second vendor"}, "chain-now-chat-0")
    assert "sim/other has no evidence on route 'chat-0'" in text(app)

    fill(
        app,
        {"chain-waive-chat-0": "it serves elsewhere"},
        "chain-now-chat-0",
    )
    chain = fallback_chain.list_fallbacks(page_frame.context(), "chat-0")
    assert [entry.target.name for entry in chain] == [
        "sim/other",
        "sim/backup",
    ]
    assert chain[0].waiver is not None
    assert chain[0].waiver.author == "ada"

    # The dialog in another tab, which was opened before, takes nothing of that back.
    fill(app, {"chain-models-chat-0": []}, "chain-now-chat-0")
    assert "another person changed the chain of route 'chat-0' meanwhile" in text(app)
    assert fallback_chain.list_fallbacks(page_frame.context(), "chat-0") == chain


def test_a_suite_is_uploaded_and_one_that_cannot_be_leaves_nothing(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beyond U+FFFF: JSON's escapes of it are two broken characters in YAML.
    title = "Small sums \N{ABACUS}"
    content = b"input,target\n2 + 2,4\n3 + 3,6\n"
    wanted = SuiteSettings("sums", scorer="numeric", title=title)
    ada = act_as(monkeypatch, "ada", Role.ADMIN)
    ctx = page_frame.context()
    before = house.read_text(encoding="utf-8")

    def disk_is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", disk_is_full)
        with pytest.raises(ConfigError, match="No space left"):
            suites_page.add_uploaded_suite(ctx, ada, wanted, "sums.csv", content)
    assert house.read_text(encoding="utf-8") == before
    assert not list((house.parent / "suites").glob("*"))
    suites_page.add_uploaded_suite(ctx, ada, wanted, "sums.csv", content)
    said = text(shown("suites"))
    assert f"<b>{title}</b>" in said
    assert "5 suites, all load" in said


def test_each_scorer_is_asked_for_its_options_and_its_judge() -> None:
    furnish()
    known = {option for options in UPLOAD_SCORERS.values() for option in options}
    assert set(suites_page.OPTION_LABELS) == known
    app = dialog(
        "from dashboard.dialog_forms import Form",
        "from harness.frame.people.access import Role",
        "form = Form(Role.ADMIN, 'upload')",
        "st.session_state.asked = (suites.ask_suite(form), form.missing)",
    )
    for scorer, judged in (
        ("pairwise", True),
        ("label", False),
        ("json_schema", False),
    ):
        app.selectbox(key="upload-scorer").select(scorer).run()
        assert not app.exception
        assert bool([box for box in app.selectbox if box.key == "upload-judge"]) == judged
    fill(app, {"upload-name": "replies", "upload-schema-json_schema": "{"})
    assert "not a JSON object" in app.session_state.asked[1]
    app.selectbox(key="upload-scorer").select("rubric").run()
    assert app.session_state.asked[1] == "Write the rubric first."
    app.text_area(key="upload-rubric-rubric").set_value("1: polite. 0: else.").run()
    assert app.session_state.asked[1] == "Choose the model that judges first."
    app.selectbox(key="upload-judge").select("sim/backup")
    app.checkbox(key="upload-show_target-rubric").uncheck().run()
    wanted, missing = app.session_state.asked
    assert missing == ""
    options = {"rubric": "1: polite. 0: else.", "show_target": False}
    judge = JudgeSettings(Target.from_name("sim/backup"))
    assert wanted == SuiteSettings(
        "replies",
        scorer="rubric",
        scorer_options=options,
        judge=judge,
    )


def test_labels_are_filled_in_with_who_gave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = {"tool_calls": [{"function": {"name": "wave", "arguments": "{}"}}]}
    asked = [{"role": "user", "content": "hi"}]
    lines: list[dict[str, Any]] = [
        {
            "id": "one",
            "messages": asked,
            "answer": {"content": "Hello."},
            "label": None,
        },
        {
            "id": "two",
            "messages": asked,
            "answer": {"content": None, **wave},
            "label": None,
        },
    ]
    # An answer stands as people read it, not as a data structure.
    assert [row["Answer"] for row in suites_page.list_rows(lines)] == [
        "Hello.",
        "wave({})",
    ]
    ada = act_as(monkeypatch, "ada", Role.ADMIN)
    app = dialog("suites.label_captures()")
    app.session_state[suites_page.READ_CAPTURES] = (ada.principal, lines)
    app.run()
    assert app.button(key="label-now").label == "Make a suite of 0 labelled requests"
    act_as(monkeypatch, "eve", Role.ADMIN)
    app.run()
    assert suites_page.READ_CAPTURES not in app.session_state
    assert app.button(key="read-captures-now").label == "Read them"

    content = suites_page.write_labelled(lines, {"one": " yes ", "two": " "}, "ada")
    first, second = (json.loads(line) for line in content.splitlines())
    assert (first["label"], first["label_author"]) == ("yes", "ada")
    assert datetime.fromisoformat(first["labelled_at"]).tzinfo is not None
    assert second == lines[1]


@pytest.mark.req("E4")
def test_a_price_says_where_it_comes_from_and_when_the_catalogue_says_another() -> None:
    price = Price(1.0, 2.0)
    other = Price(3.0, 4.0)
    entry = CatalogueEntry("openai", "gpt-x", price)
    day = datetime(2026, 11, 20, tzinfo=UTC).date()
    known = build_catalogue([entry], "litellm 1.2.3", day)
    own = CatalogueChange("openai", "gpt-x", price=price).apply_to(entry)

    def cell(price: Price | None, entry: CatalogueEntry | None) -> str:
        origin = find_price_origin(price, entry, known) if price else None
        unknown = dict.fromkeys(COLUMNS, Ability.UNKNOWN)
        model = MatrixModel("gpt-x", unknown, None, price, origin, describe_end(None), None, ())
        return price_cell(model)

    assert "litellm 1.2.3, 20 Nov 2026" in cell(price, entry)
    assert "swapproof.yaml" in cell(price, own)
    assert "set for this provider; the catalogue lists $1.00 / $2.00" in cell(other, entry)
    assert "set for this provider<" in cell(other, None)
    assert "unknown" in cell(None, None)
    ctx = page_frame.context()
    registered_providers.change_provider(ctx, SYSTEM, "openai", ProviderChange())
    targets.add_target(ctx, SYSTEM, Target("openai", "gpt-4o"))
    [row] = [row for row in build_matrix(ctx) if row.provider == "openai"]
    listed = row.models[0].price_origin
    assert listed is not None
    assert (listed.source[:8], listed.as_of is not None) == (
        "litellm ",
        True,
    )


@pytest.mark.req("F11")
def test_a_model_s_end_is_told_and_an_unknown_one_of_a_hosted_model_is_no_all_clear() -> None:
    def cell(end: KnownEnd, group: ProviderGroup) -> str:
        unknown = dict.fromkeys(COLUMNS, Ability.UNKNOWN)
        model = MatrixModel("gpt-x", unknown, None, None, None, end, None, ())
        return str(_build_model_row(model, group)["Model"])

    day = date(2026, 12, 11)
    assert "ends 11 Dec 2026" in cell(describe_end(ModelEnd(day, "")), ProviderGroup.HOSTED)
    assert "end unknown" in cell(describe_end(None), ProviderGroup.HOSTED)
    assert "no end is announced" in cell(describe_end(None, day), ProviderGroup.HOSTED)
    assert "end" not in cell(describe_end(None), ProviderGroup.LOCAL)


def test_each_setting_of_a_route_is_changed_with_a_preview_and_not_over_somebody_elses(
    monkeypatch: pytest.MonkeyPatch, house: Path
) -> None:
    house.write_text("home: state\ndata_classes: {personal: [sim]}\n", encoding="utf-8")
    forget()
    furnish(2)
    act_as(monkeypatch, "ada", Role.ADMIN)
    app = dialog(
        "routes.change_settings(kept('view', route_timeline.load_route(ctx, 'chat-0')))"
    )
    assert "These are its settings already." in text(app)
    fill(
        app,
        {
            "data_class-chat-0": "personal",
            "commit-chat-0": StreamCommit.WHOLE,
            "first_token_timeout_s-chat-0": 4.5,
            "keep_warm_bps-chat-0": 0.5,
            "task-chat-0": "mail",
        },
    )
    assert app.selectbox(key="override-vision-chat-0").options == ["chat-1"]
    rows = text(app).partition("What changes")[2]
    for name, now, then in (
        ("data class", "none", "personal"),
        ("commit", "first_token", "whole"),
        ("first token", "none", "4.5 s"),
        ("keep warm", "0 %", "0.5 %"),
        ("task", "none", "mail"),
    ):
        assert re.search(rf"{name}</td>.*?<del>{now}</del>.*?<ins>{then}</ins>", rows), rows

    ctx = page_frame.context()
    routes.change_settings(ctx, ANA, "chat-0", lambda now: replace(now, stakes=Stakes.HIGH))
    routes.change_settings(ctx, ANA, "chat-0", lambda now: replace(now, task="post"))
    app.button(key="settings-now-chat-0").click().run()
    assert "another person changed task" in text(app)
    assert ctx.store.lists.routes()[0].settings.data_class == ""
    fill(
        app,
        {"task-chat-0": "", "override-vision-chat-0": "chat-1"},
        "settings-now-chat-0",
    )
    assert "names 'chat-1', which has no data class" in text(app)

    fill(app, {"override-vision-chat-0": None}, "settings-now-chat-0")
    found = ctx.store.lists.routes()[0].settings
    assert (found.data_class, found.commit) == (
        "personal",
        StreamCommit.WHOLE,
    )
    assert (found.first_token_timeout_s, found.keep_warm_bps) == (4.5, 50)
    assert (found.stakes, found.task) == (Stakes.HIGH, "post")
    [event] = [
        e
        for e in queries.read_audit_events(ctx)
        if e.action == "route.settings" and e.actor == "ada"
    ]
    assert "commit: first_token → whole" in str(event.details)
