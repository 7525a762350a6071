from pathlib import Path

import pytest

from harness.app.configuration import configuration
from harness.app.configuration.model import Settings
from harness.app.doctor import checks
from harness.frame.errors import ConfigError
from harness.gate.online.guardrails import Guardrail, Guardrails
from harness.gate.suite_plan import Claim
from harness.interfaces.cli.operations.configuration import effective
from harness.providers.models.capabilities import Capabilities
from harness.routing.route_settings import (
    OnBadEvent,
    OnContentPolicy,
    RouteSettings,
    Stakes,
    StreamCommit,
)

FALLING_STEPS = """policies:
  a:
    canary:
      steps: [{weight_bps: 5, min_exposures: 3},
              {weight_bps: 4, min_exposures: 3}]
"""
GUARDED = "policies:\n  a:\n    canary:\n      guardrails: {"
JUDGED = (
    "policies:\n  a:\n    canary:\n      judge: {{model: {}, criteria: kind, max_usd: {}}}\n"
)
HEARD = JUDGED.replace("      judge", "      guardrails: {{judge: 1.25}}\n      judge")
DEFAULTS = Path(__file__).parents[2] / "config" / "default.yaml"


def loaded(
    tmp_path: Path,
    text: str,
    environ: dict[str, str] | None = None,
) -> Settings:
    file = tmp_path / "swapproof.yaml"
    file.write_text(text, encoding="utf-8")
    return configuration.load_settings(file, environ or {}, defaults=DEFAULTS)


@pytest.mark.req("E3")
def test_the_shipped_defaults_hold_four_suites_and_four_policies() -> None:
    settings = configuration.load_settings(None, {}, defaults=DEFAULTS)
    assert set(settings.suites) == {
        "arithmetic",
        "extraction",
        "tickets",
        "instructions",
    }
    assert set(settings.policies) == {"default", "approved", "demo", "quick"}
    assert settings.policies["default"].gate.claim is Claim.SUPERIOR
    assert all(suite.path and suite.path.is_file() for suite in settings.suites.values())


def test_a_policy_says_what_its_canaries_are_guarded_by(tmp_path: Path) -> None:
    canary = loaded(tmp_path, GUARDED + "latency: 1.5, feedback: off, refusals: 2}\n")
    tolerated = canary.policies["a"].canary.tolerated

    assert next(iter(tolerated)) is Guardrail.ERRORS
    assert tolerated[Guardrail.LATENCY] == 1.5
    assert tolerated[Guardrail.REFUSALS] == 2.0
    assert Guardrail.JUDGE not in tolerated
    assert Guardrail.FEEDBACK not in tolerated
    assert tolerated[Guardrail.OUTPUT_TOKENS] == Guardrails().output_tokens


PROVIDER = "providers: {p: {api_base: 'http://p/v1', tiers: {fast: small}}}\n"
ROUTE = "routes:\n  r:\n    incumbent: a/b\n"
CARELESS = f"""{ROUTE}    data_class: x
    overrides: {{vision: s, headers: {{"x-team: a": s}}}}
  s: {{incumbent: a/b}}
data_classes: {{x: [a]}}
"""
OF_KIND = "providers:\n  p: {{kind: {}}}\n"
AT_X = "providers:\n  p: {{api_base: x, {}}}\n"
HEADED = "providers:\n  p:\n    api_base: http://h\n    extra_headers:\n      x-a: b\n      "
TIER = ROUTE + "    fallbacks: [{{provider: {}, tier: {}}}]\n"
CANARY = "policies:\n  a:\n    canary:"
SCHEDULES = """providers: {p: {kind: openai}}
routes:
  r: {incumbent: p/m, candidates: {models: [p/n], every: 'MON#1', budget_usd: 5}}
suites:
  mine:
    path: mine.jsonl
    every: '0 3 31 2 *'
  good: {path: good.jsonl, every: '@weekly'}
"""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "router:\n  prot: 1\n",
            2,
            "unknown key 'router.prot'; did you mean 'port'?",
        ),
        ("routr: {}\n", 1, "did you mean 'router'?"),
        ("dashboard: {}\n", 1, "did you mean 'ui'?"),
        (
            "xyzzy: {}\n",
            1,
            "unknown key 'xyzzy'; known here: database_url, ",
        ),
        (OF_KIND.format("llamafile"), 2, "did you mean 'llama_cpp'?"),
        (
            OF_KIND.format("opnai"),
            2,
            "unknown kind 'opnai'; did you mean 'openai'?",
        ),
        (
            OF_KIND.format("openai") + "routes:\n  r:\n    incumbent: gpt-5-mini\n",
            5,
            "write provider/model; did you mean 'p/gpt-5-mini'?",
        ),
        (
            "providers: {p: {kind: groq, models: {own: {}}}}\nroutes: {r: {incumbent: owm}}\n",
            2,
            "did you mean 'p/own'?",
        ),
        (
            f"{ROUTE}    stakes: urgent\n",
            4,
            "unknown word 'urgent'; known here: low, high",
        ),
        (
            "router:\n  retry:\n    attempts: none\n",
            3,
            "attempts: a whole number is needed",
        ),
        (
            "spending: {monthly_cap_usd: five}\n",
            1,
            "monthly_cap_usd: a number is needed",
        ),
        (
            "router:\n  retry: {base_s: 9}\n",
            1,
            "router.retry: base_s (9.0) is above cap_s",
        ),
        (
            "router:\n  breaker: {open_s: -1}\n",
            2,
            "router.breaker.open_s: is -1; it must lie in 0.001 to 86,400 seconds",
        ),
        (
            "policies:\n  a:\n    gate: {alpa: 1}\n",
            3,
            "did you mean 'alpha'?",
        ),
        (
            "policies:\n  a:\n    gate: {alpha: 2}\n",
            3,
            "is 2; it must lie in 0.000001 to 0.5",
        ),
        ("policies:\n  a:\n    gate: {alpha: .nan}\n", 3, "finite"),
        (
            "policies:\n  a:\n    gate:\n      margin: yes please\n",
            4,
            "number",
        ),
        (
            "policies:\n  a:\n    gate: {population: these}\n",
            3,
            "needs `epochs` of 2 or more",
        ),
        (
            AT_X.format("more_api_key_envs: [B]"),
            2,
            "more_api_key_envs: needs `api_key_env`",
        ),
        (
            AT_X.format("models: {m: {context_window: 0}}"),
            2,
            "lie in 1 to 1,000,000,000",
        ),
        (
            AT_X.format("eval_limits: {max_concurrent: 0}"),
            2,
            "it must lie in 1 to 1,000,000",
        ),
        (
            HEADED + "x b: c\n",
            6,
            "providers.p.extra_headers.x b: 'x b' is not a header name",
        ),
        (
            HEADED + "X-A: c\n",
            4,
            "p.extra_headers: the extra header 'X-A' occurs twice",
        ),
        (
            "providers:\n  a:b: {api_base: http://h}\n",
            2,
            "'a:b' is not a provider name",
        ),
        (
            OF_KIND.format("vllm"),
            2,
            "required for a provider of kind 'vllm'",
        ),
        ("routes:\n  r:\n    incumbent: foo\n", 3, "write provider/model"),
        (
            "routes:\n  r:\n    incumbent: a/b\n    suites: [{sute: x}]\n",
            4,
            "'suite'",
        ),
        (
            f"{ROUTE}    fallbacks:\n      - a/c\n      - {{target: c}}\n",
            6,
            "provider/model",
        ),
        (
            f"{ROUTE}    fallbacks: [{{target: a/b, model: b}}]\n",
            4,
            "give `provider` with",
        ),
        (
            f"{ROUTE}    fallbacks: [{{provider: a}}]\n",
            4,
            "give `provider` with",
        ),
        (TIER.format("a", "x"), 4, "has no tier 'x'"),
        (
            f"{PROVIDER}{ROUTE}    fallbacks: [p]\n",
            5,
            "provider 'p' has no tier 'r'",
        ),
        (PROVIDER + TIER.format("p", "fats"), 5, "did you mean 'fast'?"),
        (f"{ROUTE}    keep_warm: a bit\n", 4, "write 1%"),
        (f"{ROUTE}    keep_warm: 11%\n", 4, "0 % to 10 %, not 11 %"),
        (f"{ROUTE}    keep_warm: 0.001%\n", 4, "whole basis points"),
        (
            f"{ROUTE}    on_content_policy: retry\n",
            4,
            "'retry'; known here: fail, fallback",
        ),
        (f"{ROUTE}    tools: harmless\n", 4, "side_effects"),
        (
            f"{ROUTE}    data_class: x\ndata_classes: {{xy: []}}\n",
            4,
            "did you mean 'xy'?",
        ),
        (
            f"{ROUTE}    overrides: {{visoin: s}}\n",
            4,
            "did you mean 'vision'?",
        ),
        (
            f"{ROUTE}    overrides:\n      vision: s\n",
            5,
            "which does not exist",
        ),
        (
            f"{ROUTE}    overrides:\n      image: r\n",
            5,
            "names the route itself",
        ),
        (
            CARELESS,
            5,
            "routes.r.overrides.vision: route 'r': the override for vision names",
        ),
        (
            (
                "suites:\n  s:\n    path: s.jsonl\n    data_class: pii\n"
                "    judge: {target: p/m}\ndata_classes: {pii: [local]}\n"
            ),
            5,
            "may not see pii data; allowed are local",
        ),
        (FALLING_STEPS, 5, "above the previous step's weight"),
        (
            "policies:\n  a:\n    canary:\n      steps: []\n",
            4,
            "at least one step",
        ),
        (
            "policies:\n  a:\n    canary: {bake_bps: 0}\n",
            3,
            "lie in 1 to 5,000 basis points",
        ),
        (
            CANARY + " {peak: {start_h: 25}}\n",
            3,
            "is 25; it must lie in 0 to 24",
        ),
        (
            GUARDED + "latency: -1}\n",
            4,
            "latency: is -1; a tolerated ratio is 0.1",
        ),
        (
            GUARDED + "judge: 1.25}\n",
            4,
            "needs `canary.judge`, the model that reads",
        ),
        (JUDGED.format("sim/m", 5), 4, "needs a tolerated ratio"),
        (GUARDED + "judge: 1.25}\n      judge: {}\n", 5, "model"),
        (HEARD.format("sim", 5), 5, "PROVIDER/MODEL, not 'sim'"),
        (
            HEARD.format("sim/m", 0),
            5,
            "the judge cannot read answers without",
        ),
        (
            HEARD.format("sim/m", "5, share_bps: 0"),
            5,
            "1 to 10,000 basis points",
        ),
        (HEARD.format("sim/m", "5, timeout_s: 900"), 5, "at most 120 s"),
        (
            HEARD.format("sim/m", 5) + "providers: {p: {api_base: 'http://p/v1'}}\n"
            "data_classes: {personal: [p]}\n"
            "routes:\n  r: {incumbent: p/b, policy: a, data_class: personal}\n",
            9,
            "the judge of policy 'a' is at 'sim', which may not see personal data",
        ),
        (GUARDED + "latency: 0}\n", 4, "give the tolerated ratio"),
        (
            GUARDED + "latency: on}\n",
            4,
            "give the tolerated ratio, such as 1.25",
        ),
        (
            CANARY + " {local_alpha: -1}\n",
            3,
            "lie in 0, or 0.000001 to 0.25",
        ),
        ("suites:\n  mine: {scorer: exact}\n", 2, "either `path` or `task`"),
        (
            "alerts:\n  sinks:\n    - {url_env: U, kinds: [promoted, route-dwn]}\n",
            3,
            "kinds.1: unknown word 'route-dwn'; did you mean 'route_down'?",
        ),
        ("a: 1\na: 2\n", 2, "given twice"),
        ("a: &a\n  - *a\n", 1, "nested more than 32 deep"),
        ('a: 1\nb: "\\ud800"\n', 2, "a lone surrogate"),
        ("a: 1\n? [b]\n: 2\n", 2, "a key is a list or a mapping"),
        ("router: [\n", 2, "the file ends within a value"),
        ("a:\n  - [1,\n    2\n", 2, "the `[` of this line is not closed: add a `]`"),
        ("a:\n  b: {c: 1\nd: 2\n", 2, "the `{` of this line is not closed"),
        ("a: {b: 1 c: 2}\n", 1, "a `,` or a `}` is missing after a value"),
        ("a:\n  b: 'c\n  d: 1\n", 2, "the quote of this line is not closed"),
        ("a:\n\tb: 1\n", 2, "a tab stands in the indentation"),
        ("a: b: c\n", 1, "quote a text with `: `"),
        (
            "providers:\n  openia: {}\n",
            2,
            "If you mean the provider openai, write `openai: {kind: openai}`",
        ),
        (
            "providers:\n  openai: {}\n",
            2,
            "If you mean the provider openai, write `openai: {kind: openai}`",
        ),
        ("- 1\n", 1, "mapping"),
    ],
)
def test_a_fault_in_the_file_is_named_with_file_line_and_guess(
    tmp_path: Path,
    text: str,
    line: int,
    words: str,
) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, text)
    assert f"swapproof.yaml:{line}: " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnopqrstuvwx",
        "AIzaSyA1234567890abcdefghijklmnopqrstu",
        "gsk_abcdefghijklmnopqrstuvwxyz0123",
        "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345",
        "OPENAI KEY",
    ],
)
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(
    tmp_path: Path, key: str
) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, f"providers:\n  p: {{kind: openai, api_key_env: '{key}'}}\n")

    assert "swapproof.yaml:2: providers.p.api_key_env: the name of an env" in str(error.value)
    assert key not in str(error.value)


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="swapproof init"):
        configuration.load_settings(tmp_path / "none.yaml", {}, defaults=DEFAULTS)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://db/swapproof\n", encoding="utf-8")
    settings = loaded(
        tmp_path,
        "router: {port: 1}\n",
        {
            "SWAPPROOF__ROUTER__PORT": "2",
            "SWAPPROOF__DATABASE_URL_FILE": str(secret),
        },
    )
    assert settings.router.port == 2
    assert settings.database_url == "postgresql+psycopg://db/swapproof"


def test_a_wrong_environment_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SWAPPROOF__ROUTER__PRT.*did you mean 'port'"):
        loaded(tmp_path, "{}", {"SWAPPROOF__ROUTER__PRT": "2"})
    with pytest.raises(ConfigError, match="cannot read"):
        loaded(
            tmp_path,
            "{}",
            {"SWAPPROOF__DATABASE_URL_FILE": str(tmp_path / "none")},
        )


def test_a_users_file_is_laid_over_the_defaults_key_by_key(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
suites:
  mine: {path: my.jsonl, scorer: exact}
policies:
  default: {gate: {margin: 0.02}}
providers:
  openai: {api_base: https://api.openai.com/v1, api_key_env: OPENAI_API_KEY,
           prices: {gpt: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}},
           more_api_key_envs: [SECOND_KEY],
           models: {gpt: {context_window: 128000, vision: false}}}
routes:
  triage:
    incumbent: openai/gpt
    fallbacks: [{provider: openai, model: other, parameters: {temperature: 0}}]
    suites: [tickets, {suite: mine, role: required}]
""",
    )
    assert settings.suites["mine"].path == tmp_path / "my.jsonl"
    assert settings.suites["tickets"].scorer == "label"
    assert settings.policies["default"].gate.margin == 0.02
    assert settings.policies["default"].gate.alpha == 0.05
    route = settings.routes["triage"]
    assert (route.incumbent.provider, route.incumbent.model) == (
        "openai",
        "gpt",
    )
    assert route.fallbacks[0].parameters == {"temperature": 0}
    assert [s.role for s in route.settings.suites] == ["primary", "required"]
    openai = settings.providers["openai"]
    assert openai.key_envs == ("OPENAI_API_KEY", "SECOND_KEY")
    assert openai.can("gpt") == Capabilities(context_window=128_000, vision=False)
    assert openai.can("other") == Capabilities()
    assert settings.home == tmp_path / ".swapproof"
    assert settings.database_url.startswith("sqlite:///")


@pytest.mark.req("A4", "B6", "D8")
def test_a_route_says_what_it_risks_and_who_may_answer(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        f"""
{ROUTE}
    stakes: high
    fallbacks:
      - a/spare
      - {{target: b/large, capable: true, parameters: {{temperature: 0}}}}
      - {{provider: c, model: x/y, capable: true}}
    keep_warm: 1%
    on_content_policy: fallback
    tools: side_effects
    data_class: personal
    first_token_timeout_s: 60
    first_byte_timeout_s: 90
    commit: whole
    on_bad_event: skip
data_classes:
  personal: [a, b, c]
""",
    )
    route = settings.routes["r"]
    spare, large, third = route.fallbacks
    assert (large.provider, large.model, large.parameters) == (
        "b",
        "large",
        {"temperature": 0},
    )
    assert route.settings == RouteSettings(
        stakes=Stakes.HIGH,
        on_content_policy=OnContentPolicy.FALLBACK,
        keep_warm_bps=100,
        side_effects=True,
        capable=(large.id, third.id),
        data_class="personal",
        first_token_timeout_s=60.0,
        first_byte_timeout_s=90.0,
        commit=StreamCommit.WHOLE,
        on_bad_event=OnBadEvent.SKIP,
    )
    assert spare.id not in route.settings.capable


@pytest.mark.parametrize("share", ["0.5%", "50", "0.50 %"])
def test_a_share_is_a_percentage_or_basis_points(tmp_path: Path, share: str) -> None:
    settings = loaded(tmp_path, f"{ROUTE}    keep_warm: {share}\n")
    assert settings.routes["r"].settings.keep_warm_bps == 50


def test_the_address_of_a_provider_that_has_one_place_may_be_left_out(tmp_path: Path) -> None:
    providers = loaded(
        tmp_path, "providers: {a: {kind: anthropic}, o: {kind: openai}}\n"
    ).providers

    assert providers["a"].url("/messages") == "https://api.anthropic.com/v1/messages"
    assert providers["o"].url("/responses") == "https://api.openai.com/v1/responses"


@pytest.mark.req("C5", "E1")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        # A literal target of an agent.
        ("@p/small", "'@p/small' is not a route name"),
        (r"chat\e[2J", "U+001B, which is invisible"),
        (r"chat\u202egpj", "U+202E, which is invisible"),
    ],
)
def test_a_routes_name_that_would_be_taken_for_something_else_is_refused_with_its_place(
    tmp_path: Path,
    name: str,
    why: str,
) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(
            tmp_path,
            f'{PROVIDER}routes:\n  "{name}": {{incumbent: p/small}}\n',
        )
    assert "yaml:3: routes." in str(error.value)
    assert why in str(error.value)


@pytest.mark.req("B9")
def test_sinks_are_read_and_get_names(tmp_path: Path) -> None:
    sinks = loaded(
        tmp_path,
        "alerts:\n  sinks:\n    - url: slack://a/b/c\n"
        "    - {url_env: MAIL, name: mail}\n"
        "    - {webhook: 'https://x.example/in', secret_env: S}\n",
    ).alerts.sinks

    assert [sink.name for sink in sinks] == ["slack-1", "mail", "webhook-3"]
    assert sinks[0].url == "slack://a/b/c"


@pytest.mark.parametrize(
    ("sink", "why"),
    [
        ("{name: x}", "give one of"),
        ("{url: 'slack://a/b/c', url_env: S}", "give one of"),
        ("{webhook: 'https://x.example/'}", "secret_env"),
        ("{webhook: 'ftp://x.example/', secret_env: S}", "http or https"),
        (
            "{url: 'slack://a/b/c', secret_env: S}",
            "only a webhook can have `secret_env`",
        ),
        ("{url: nothing}", "must be an apprise URL"),
        (
            "{webhook: 'http://169.254.169.254/x', secret_env: S}",
            "link-local",
        ),
        ("{webhook: 'http://metadata.goog/x', secret_env: S}", "metadata"),
        ("{url: 'json://metadata.google.internal/'}", "metadata"),
        ("{url: 'slack://a/b/c', retries: 3}", "unknown key"),
    ],
)
def test_a_sink_that_makes_no_sense_is_refused_with_its_place(
    tmp_path: Path,
    sink: str,
    why: str,
) -> None:
    with pytest.raises(ConfigError, match=why) as raised:
        loaded(tmp_path, f"alerts:\n  sinks:\n    - {sink}\n")

    assert "swapproof.yaml:3" in str(raised.value)
    assert "a/b/c" not in str(raised.value)


def test_two_sinks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are two sinks named 'x'"):
        loaded(
            tmp_path,
            "alerts:\n  sinks:\n    - {name: x, url_env: A}\n    - {name: x, url_env: B}\n",
        )


def test_the_settings_are_shown_and_repeated_without_urls(tmp_path: Path) -> None:
    found = loaded(tmp_path, "alerts:\n  sinks:\n    - url: slack://tokenA/tokenB\n")

    assert "tokenA" not in f"{effective(found)} {found!r}"
    assert "***" in str(effective(found))


def test_the_doctor_names_a_variable_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = loaded(
        tmp_path,
        "alerts:\n  sinks:\n    - {url_env: MAIL_URL, name: mail}\n"
        "    - {webhook: 'https://x.example/in', secret_env: HOOK}\n",
    )
    monkeypatch.setenv("HOOK", "s3cret")

    mail, hook = checks._check_alert_sinks(settings, None)

    assert (mail.status, hook.status) == ("warn", "ok")
    assert "MAIL_URL is not set" in mail.found
    assert "s3cret" not in f"{mail} {hook}"


def test_a_faulty_schedule_is_named_with_its_line_and_stops_no_process(tmp_path: Path) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(SCHEDULES)

    settings = configuration.load_settings(file, {}, defaults=DEFAULTS)

    suite, route = configuration.list_schedule_faults(settings, {}, defaults=DEFAULTS)
    assert suite.startswith(f"{file}:7: suites.mine.every: '0 3 31 2 *' names a time")
    assert route.startswith(f"{file}:3: routes.r.candidates.every: 'MON#1' is not a cron")
