import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.app.installation import open_installation
from harness.app.suite_import import add_suite, import_file
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.errors import ConfigError, Conflict, InputError
from harness.operations import queries
from harness.providers.target import Target
from tests.support.browser.dashboard_data import ANA, configured
from tests.unit.test_evals_importing import line

ITEMS = b'{"input": "2 + 2", "target": "4"}\n{"input": "3 + 3", "target": "6"}\n'
PROMPTFOO = b'{"prompts": ["file:///etc/passwd"], "tests": [{"assert": [{"type": "is-json"}]}]}'
UPLOADS = 4
# Waits for the others, then uploads one name that all want, and some of its own.
UPLOADER = f"""
import sys, time
from pathlib import Path
from harness.app.installation import open_installation
from harness.app.suite_import import add_suite
from harness.frame.errors import Conflict
from harness.app.configuration.model import SuiteSettings
from tests.support.browser.dashboard_data import ANA

config, me = Path(sys.argv[1]), sys.argv[2]
installation = open_installation(config)
installation.context
config.with_name("ready-" + me).touch()
while not config.with_name("go").exists():
    time.sleep(0.001)
for name in ("wanted", *(f"own-{{me}}-{{n}}" for n in range({UPLOADS}))):
    suffix = "jsonl" if me == "0" else "csv"
    content = {ITEMS!r} if me == "0" else b"input,target\\n2 + 2,4\\n"
    try:
        wanted = SuiteSettings(name, scorer="numeric")
        add_suite(installation, ANA, wanted, f"x.{{suffix}}", content)
        print("added", name)
    except Conflict as error:
        print("refused", error)
"""


def test_uploads_of_several_processes_lose_none_and_are_known_without_a_restart(
    tmp_path: Path,
) -> None:
    config = configured(tmp_path)
    running = open_installation(config)
    before = running.context.suites.names()
    uploaders = [
        subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-c", UPLOADER, str(config), str(me)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in range(2)
    ]
    while not all((tmp_path / f"ready-{me}").exists() for me in range(2)):
        assert all(uploader.poll() is None for uploader in uploaders)
    (tmp_path / "go").touch()
    said = "".join(uploader.communicate(timeout=300)[0] for uploader in uploaders)
    assert [uploader.returncode for uploader in uploaders] == [0, 0]

    own = {f"own-{me}-{n}" for me in range(2) for n in range(UPLOADS)}
    assert said.count("added wanted\n") == 1
    assert said.count("refused there is already a suite 'wanted': use another name\n") == 1
    assert set(running.context.suites.names()) - set(before) == {
        "wanted",
        *own,
    }
    assert {e.name for e in queries.list_suites(running.context) if e.error} == set()
    assert len(list((tmp_path / "suites").iterdir())) == len(own) + 1
    added = [
        e.subject for e in queries.read_audit_events(running.context) if e.action == "suite.add"
    ]
    assert sorted(added) == sorted(f"suite {name}" for name in {"wanted", *own})
    running.close()


def test_an_uploaded_suite_has_its_scorers_options_and_its_judge(tmp_path: Path) -> None:
    running, editor = (open_installation(configured(tmp_path)) for _ in range(2))
    options = {"rubric": "1: polite.\n0: else.", "show_target": False}
    judge = JudgeSettings(Target.from_name("sim/judge"), max_cost_usd=2.5)
    wanted = SuiteSettings(
        "replies",
        scorer="rubric",
        scorer_options=options,
        judge=judge,
    )
    add_suite(editor, ANA, wanted, "replies.jsonl", ITEMS)
    assert running.context.judges["replies"].name == "sim/judge"
    settings = open_installation(tmp_path / "swapproof.yaml").settings.suites["replies"]
    assert settings.scorer_options == options
    assert settings.judge == judge
    assert "replies" in dict(running.context.judges)
    with pytest.raises(Conflict):
        add_suite(running, ANA, wanted, "replies.jsonl", ITEMS)


def test_what_a_conversion_left_out_is_said_wherever_the_suite_is_proof(tmp_path: Path) -> None:
    config = configured(tmp_path)
    file = tmp_path / "promptfooconfig.yaml"
    file.write_text("""
prompts: ["{{q}}"]
tests:
  - {vars: {q: a}, assert: [{type: contains, value: x}, {type: cost, threshold: 1}]}
  - {vars: {q: b}, assert: [{type: javascript, value: output}]}
  - {vars: {q: "{{ q | upper }}"}, assert: [{type: equals, value: B}]}
scenarios: [{config: [{}, {}], tests: [{vars: {q: c}}]}]
""")

    import_file(open_installation(config), ANA, file, SuiteSettings("mails"))

    told = open_installation(config).context.suites.describe_sample("mails")
    left = "4 that the conversion did not take, 1 of their assertions"
    assert told == f"Its 1 items omit: {left}."
    assert (
        'origin = "converted from promptfoo"' in (tmp_path / "suites/manifest.toml").read_text()
    )


REPLACED = """
suites:
    # ours
    mails: {path: suites/x.csv,
      scorer: exact}
    # next
    more:
        path: suites/x.csv

        title: by hand  # remark
# end
"""
REPLACING = """
suites:
    # ours
    mails:
      path: "suites/mails.jsonl"
      scorer: "numeric"
      title: "items.jsonl"
    # next
    more:
      path: "suites/more.jsonl"
      scorer: "numeric"
      title: "items.jsonl"
# end
"""


def test_a_replaced_suite_has_its_new_settings_in_the_place_of_its_old_ones(
    tmp_path: Path,
) -> None:
    config = configured(tmp_path)
    file = tmp_path / "items.jsonl"
    base = config.read_text()
    config.write_text(base + REPLACED)
    file.write_bytes(ITEMS)
    for name in ("mails", "more"):
        wanted = SuiteSettings(name, scorer="numeric")
        installation = open_installation(config)
        with pytest.raises(Conflict, match="or --replace"):
            import_file(installation, ANA, file, wanted)
        done = import_file(installation, ANA, file, wanted, replace_=True)
        assert (done.configured, done.replaced) == (True, [name])

    assert config.read_text() == base + REPLACING


def test_a_refused_upload_of_labels_leaves_no_entry_in_the_manifest(tmp_path: Path) -> None:
    config = configured(tmp_path)
    installation = open_installation(config)
    labelled = json.dumps(line(1, provenance={**line(1)["provenance"], "data_class": ""}))

    def upload(name: str) -> None:
        wanted = SuiteSettings(name, scorer="label")
        add_suite(installation, ANA, wanted, "a.jsonl", labelled.encode())

    upload("kept")
    manifest = tmp_path / "suites" / "manifest.toml"
    before = manifest.read_bytes()

    config.write_text("home: state\nsuites: {kept: {path: suites/kept.jsonl, scorer: label}}\n")
    with pytest.raises(ConfigError, match="a form that Swapproof cannot extend"):
        upload("second")
    assert manifest.read_bytes() == before
    assert {file.name for file in manifest.parent.iterdir()} == {
        "kept.jsonl",
        manifest.name,
    }


@pytest.mark.parametrize(
    ("name", "file", "content", "because"),
    [
        ("s", "x.yaml", PROMPTFOO, "ends in .jsonl or .csv, not in '.yaml'"),
        ("s", "x.json", PROMPTFOO, "ends in .jsonl or .csv, not in '.json'"),
        ("s", "x.jsonl", PROMPTFOO, "^x.jsonl:1: field 'input'"),
        (
            "s",
            "x.csv",
            b"input,target\na,b\nc,\n",
            "^x.csv:3: field 'target'",
        ),
        ("s", "x.jsonl", ITEMS + b"\n{}", "^x.jsonl:4: field 'input'"),
        ("s", "x.jsonl", b"[" * 200_000, "^x.jsonl:1: not JSON"),
        ("../s", "x.jsonl", ITEMS, "is not a suite's name"),
    ],
)
def test_a_refused_upload_names_its_own_line_and_leaves_nothing_behind(
    name: str,
    file: str,
    content: bytes,
    because: str,
    tmp_path: Path,
) -> None:
    config = configured(tmp_path)
    installation = open_installation(config)
    before = config.read_bytes()
    with pytest.raises(InputError, match=because):
        add_suite(installation, ANA, SuiteSettings(name), file, content)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError):
        import_file(
            installation,
            ANA,
            tmp_path / file,
            SuiteSettings(name),
            uploaded=True,
        )
    assert config.read_bytes() == before
    assert not (tmp_path / "suites").exists()
