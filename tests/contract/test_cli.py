"""The command line as a user meets it: help, speed, exit statuses, one line per mistake."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from boundaryflow.boundary import Boundaries
from boundaryflow.config import NamedDeliveryParams, delivery_of
from boundaryflow.config.advice import advised
from boundaryflow.errors import BoundaryError, ParamsError, PipelineError
from flows import cli as room
from flows.cli import cli
from flows.locks import FlowBusyError, flow_lock

_COMMANDS = [
    "augment",
    "bulk-edit",
    "bundle",
    "doctor",
    "edit",
    "export",
    "gc",
    "import-checkpoint",
    "inspect",
    "params",
    "report",
    "review",
    "run",
    "sample",
    "serve",
    "status",
    "sweep",
    "text",
    "train-denoiser",
]
_HEAVY = ("torch", "prefect", "dvc", "pandas", "numpy", "pydantic", "yaml", "rich")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Looks like a checkout; what the commands call is replaced."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text("datasets: [avatars]\n")
    (tmp_path / "photo.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _replace(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def _params(monkeypatch: pytest.MonkeyPatch) -> None:
    params = types.SimpleNamespace(datasets=["avatars"])
    _replace(monkeypatch, "boundaryflow.config", load_params=lambda: params, delivery_of=delivery_of)


def test_every_command_is_there_with_help_and_a_runnable_example() -> None:
    assert sorted(cli.commands) == _COMMANDS
    for name in _COMMANDS:
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0
        if name not in ("doctor", "report", "status"):
            assert f"boundaryflow {name}" in result.output.partition("Example")[2]


def test_examples_in_the_help_are_accepted_by_the_parser() -> None:
    for name in _COMMANDS:
        for line in (cli.commands[name].epilog or "").splitlines():
            words = shlex.split(line)
            if "boundaryflow" in words:
                arguments = [
                    __file__ if word.endswith(".png") else str(Path(__file__).parent) if word.endswith("/") else word
                    for word in words[words.index("boundaryflow") + 2 :]
                ]
                assert cli.commands[name].make_context(name, arguments)


def test_numbers_on_the_command_line_are_finite() -> None:
    context = click.Context(cli)
    options = [
        param
        for name in cli.list_commands(context)
        if (command := cli.get_command(context, name)) is not None
        for param in command.params
        if isinstance(param.type, click.types.FloatParamType)
    ]
    assert {option.name for option in options} >= {"strengths", "start", "stop", "weakest", "every"}
    for option in options:
        for text in ("nan", "inf", "-inf"):
            with pytest.raises(click.BadParameter, match="finite number|not in the range"):
                option.type.convert(text, option, context)


def _child_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"loaded = [name for name in {_HEAVY!r} if name in sys.modules]\nassert not loaded, loaded\n"
    )
    seconds = []
    for _ in range(3):
        since = _child_cpu_s()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        seconds.append(_child_cpu_s() - since)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 0.5  # of processor time: others may be at work on this machine


def test_version_is_printed() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("boundaryflow ")


def test_outside_a_checkout_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["run"])
    assert result.exit_code == 2
    assert "change into a boundaryflow checkout" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_wrong_params_are_lines_and_status_2_before_prefect_is_imported(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_params() -> None:
        raise ParamsError("params.yaml: edit.strenght: unknown key\nparams.yaml: run_seed is -1")

    _replace(monkeypatch, "boundaryflow.config", load_params=load_params, described=dict)
    monkeypatch.setitem(sys.modules, "flows.run", None)
    result = CliRunner().invoke(cli, ["run"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "ParamsError: params.yaml: edit.strenght: unknown key",
        "ParamsError: params.yaml: run_seed is -1",
    ]


@pytest.fixture
def two_sets(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list `datasets` is that of the file, `digits` is a folder of one image, DVC knows stage `edit`, no run."""
    from boundaryflow.config import described
    from flows import dvc_graph
    from flows import run as run_room

    def section(kind: str) -> types.SimpleNamespace:
        source = types.SimpleNamespace(kind=kind, include=[], exclude=[])
        return types.SimpleNamespace(ingest=types.SimpleNamespace(source=source, image_size=32))

    def load_params() -> types.SimpleNamespace:
        names = (checkout / "params.yaml").read_text().partition("[")[2].partition("]")[0].split(", ")
        return types.SimpleNamespace(datasets=names, data={"avatars": section("avatars"), "digits": section("folder")})

    def plan(root: Path, datasets: object, stages: tuple[str, ...]) -> tuple[()]:
        if not set(stages) <= {"edit"}:
            raise PipelineError(f"dvc.yaml has no stage {stages[0]!r}")
        with pytest.raises(FlowBusyError), flow_lock(root):
            pass
        return ()

    _replace(
        monkeypatch,
        "boundaryflow.config",
        load_params=load_params,
        activate_dataset=lambda path, name: path.write_text(f"datasets: [avatars, {name}]\n"),
        copy_entry=None,
        described=described,
        ready_entries=dict,
    )
    monkeypatch.setattr(dvc_graph, "plan", plan)
    monkeypatch.setattr(dvc_graph, "has_remote", lambda root: False)
    monkeypatch.setattr(run_room, "execute", lambda *_, **__: 0)
    (checkout / "data/raw/digits").mkdir(parents=True)
    (checkout / "data/raw/digits/README.md").write_text("how to fill it")
    (checkout / "data/raw/digits/4.png").write_bytes(b"x")
    return checkout


def test_run_adds_a_known_data_set_and_says_so(two_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, object] = {}

    def execute(root: Path, datasets: object, stages: object, **options: object) -> int:
        called.update(root=root, datasets=datasets, stages=stages, **options)
        return 0

    from flows import run as run_room

    monkeypatch.setattr(run_room, "execute", execute)
    result = CliRunner().invoke(cli, ["run", "--dataset", "digits", "--stage", "edit", "--force"])
    assert result.exit_code == 0, result.stderr
    assert result.output == "params.yaml: digits added to `datasets`\n"
    assert (two_sets / "params.yaml").read_text() == "datasets: [avatars, digits]\n"
    assert (called["root"], called["datasets"], called["stages"]) == (two_sets, ("digits",), ("edit",))
    assert (called["force"], called["push"]) == (True, False)
    refused = CliRunner().invoke(cli, ["run", "--dataset", "digit"])
    assert refused.exit_code == 2
    assert "did you mean 'digits'?" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ManifestError: ingest data/raw/digits: holds no images; put some there (docs/datasets.md says how)"),
        (["--stage", "edti"], "PipelineError: dvc.yaml has no stage 'edti'"),
        (["--push"], "PipelineError: --push: DVC has no default remote"),
    ],
    ids=["images", "stage", "remote"],
)
def test_run_data_set_that_cannot_be_run_is_not_left_in_params(
    two_sets: Path, arguments: list[str], message: str
) -> None:
    before = (two_sets / "params.yaml").read_text()
    if not arguments:
        (two_sets / "data/raw/digits/4.png").unlink()
    result = CliRunner().invoke(cli, ["run", "--dataset", "digits", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert (two_sets / "params.yaml").read_text() == before


def test_run_data_set_whose_files_are_refused_is_not_left_in_params(
    two_sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (two_sets / "params.yaml").read_text()
    known = sys.modules["boundaryflow.config"].load_params

    def load_params() -> types.SimpleNamespace:
        if (two_sets / "params.yaml").read_text() != before:
            raise ParamsError("params.yaml: data/raw/digits/labels.csv does not exist")
        return known()

    monkeypatch.setattr(sys.modules["boundaryflow.config"], "load_params", load_params)
    result = CliRunner().invoke(cli, ["run", "--dataset", "digits"])
    assert (result.exit_code, result.stderr) == (
        2,
        "ParamsError: params.yaml: data/raw/digits/labels.csv does not exist\n",
    )
    assert (two_sets / "params.yaml").read_text() == before


def test_run_adds_nothing_while_another_run_is_at_work(two_sets: Path) -> None:
    before = (two_sets / "params.yaml").read_text()
    with flow_lock(two_sets):
        result = CliRunner().invoke(cli, ["run", "--dataset", "digits"])
    assert result.exit_code == 2
    assert "another boundaryflow run is at work here" in result.stderr
    assert (two_sets / "params.yaml").read_text() == before


@pytest.mark.usefixtures("_params")
def test_edit_resolves_paths_and_prints_what_was_written(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def edit_photos(*arguments: object, **options: object) -> list[Path]:
        seen.extend([*arguments, options])
        return [Path("a.png"), Path("b.png")]

    _replace(monkeypatch, "boundaryflow.jobs.pictures", edit_photos=edit_photos)
    attributes = ["--attribute", "smiling", "--attribute", "beard=off", "--attribute", "hat=0.5"]
    strengths = ["--strength", "-1", "--strength", "2", "--mask", "photo.png", "--grid", "sheet.png"]
    result = CliRunner().invoke(cli, ["edit", "photo.png", *attributes, *strengths])
    assert result.output.splitlines() == ["a.png", "b.png"]
    amounts = {"smiling": 1.0, "beard": -1.0, "hat": 0.5}
    files = {"mask": checkout / "photo.png", "grid": checkout / "sheet.png"}
    assert seen[:-2] == [[checkout / "photo.png"], "avatars", amounts, [-1.0, 2.0], checkout / "out/edit"]
    assert seen[-2:] == [NamedDeliveryParams(), files]


@pytest.mark.usefixtures("checkout")
def test_edit_refuses_what_is_no_amount_and_an_attribute_named_twice() -> None:
    for text in ("hat=maybe", "hat=0", "hat=nan", "hat=inf", "=on"):
        refused = CliRunner().invoke(cli, ["edit", "photo.png", "--attribute", text])
        assert refused.exit_code == 2
        assert f"{text!r} is not NAME, NAME=on" in refused.stderr
    twice = CliRunner().invoke(cli, ["sweep", "photo.png", "--attribute", "hat", "--attribute", "hat=off"])
    assert "'hat' is named twice; name it once" in twice.stderr


@pytest.mark.usefixtures("_params", "checkout")
def test_edit_without_boundaries_is_one_line_and_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def edit_photos(*_: object, **_options: object) -> list[Path]:
        raise BoundaryError("boundary 'smiling' does not exist; run `boundaryflow run` first")

    _replace(monkeypatch, "boundaryflow.jobs.pictures", edit_photos=edit_photos)
    result = CliRunner().invoke(cli, ["edit", "photo.png", "--attribute", "smiling"])
    assert result.exit_code == 2
    assert result.stderr == "BoundaryError: boundary 'smiling' does not exist; run `boundaryflow run` first\n"


@pytest.mark.usefixtures("_params", "checkout")
def test_sample_reads_on_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    _replace(
        monkeypatch,
        "boundaryflow.jobs.sampling",
        sample_images=lambda *arguments: seen.extend(arguments) or Path("grid.png"),
    )
    result = CliRunner().invoke(
        cli,
        [
            "sample",
            "-n",
            "4",
            "--attribute",
            "hat=off",
            "--attribute",
            "smiling",
            "--attribute",
            "beard=0.25",
            "--seed",
            "7",
        ],
    )
    assert result.output == "grid.png\n"
    assert seen[:4] == ["avatars", 4, {"hat": 0.0, "smiling": 1.0, "beard": 0.25}, 7]
    for text in ("hat=maybe", "hat=1.5", "hat=nan", "=on"):
        refused = CliRunner().invoke(cli, ["sample", "--attribute", text])
        assert refused.exit_code == 2
        assert f"{text!r} is not NAME, NAME=on" in refused.stderr


@pytest.mark.usefixtures("_params")
def test_report_is_printed_or_missed(checkout: Path) -> None:
    result = CliRunner().invoke(cli, ["report"])
    assert result.exit_code == 2
    assert "run `boundaryflow run --dataset avatars` first" in result.stderr
    page = checkout / "data/report/avatars/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<html></html>")
    assert CliRunner().invoke(cli, ["report"]).output == f"{page}\n"


@pytest.mark.usefixtures("_params")
def test_unexpected_error_is_one_line_and_a_log(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit_photos(*_: object, **_options: object) -> list[Path]:
        raise ZeroDivisionError("division by zero")

    _replace(monkeypatch, "boundaryflow.jobs.pictures", edit_photos=edit_photos)
    arguments = ["edit", "photo.png", "--attribute", "smiling"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("boundaryflow: unexpected ZeroDivisionError: division by zero\n  traceback: ")
    (log,) = (checkout / room.LOG_FOLDER).glob("error-*.log")
    assert "Traceback" in log.read_text()
    monkeypatch.setenv("BOUNDARYFLOW_DEBUG", "1")
    assert isinstance(CliRunner().invoke(cli, arguments).exception, ZeroDivisionError)


def test_what_a_boundary_lacks_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise Boundaries("hat", {}).not_separable

    monkeypatch.setattr(cli.commands["status"], "callback", lambda **_: main())
    shown = CliRunner().invoke(cli, ["status"])
    assert shown.exit_code == 2
    assert "'hat': held-out images" in shown.output
    assert "; label more images, lower boundary.min_auc, or set edit.method: single_step\n" in shown.output
    with pytest.raises(BoundaryError, match="lower boundary.min_auc"):
        advised(main)()
