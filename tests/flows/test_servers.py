"""The flow against real servers: PostgreSQL, a password, a store; and one that dies."""

from __future__ import annotations

import gc
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from boundaryflow.errors import PipelineError
from flows import environment, progress, server
from flows.run import execute
from tests.faults.cluster import free_port
from tests.flows.toy import QUIET_DVC, attempts

pytestmark = [pytest.mark.filterwarnings(QUIET_DVC), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
_EXECUTE = (
    "import sys; from pathlib import Path; from flows.run import execute; "
    "sys.exit(execute(Path('.').resolve(), **eval(sys.argv[1])))"
)


def _environment(home: Path, **extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    telemetry = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DVC_NO_ANALYTICS": "1"}
    own = {"PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT), "BOUNDARYFLOW_RETRY_DELAY_S": "0.1"}
    return {**kept, **telemetry, **own, **extra}


def _run(root: Path, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`boundaryflow run` in a process of its own."""
    command = [sys.executable, "-c", _EXECUTE, repr(options)]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


class _Server:
    """A Prefect server as a process of its own."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.env = _environment(home, **settings)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._log = home / "server.log"

    def __enter__(self) -> _Server:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        words = ["server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *words], env=self.env, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 240
        while server.refusal(self.url, timeout_s=2) not in ("", "401"):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def count_task_runs(self) -> int:
        """Task runs that the server has on record as completed."""
        script = (
            "from prefect.client.orchestration import get_client\n"
            "with get_client(sync_client=True) as client:\n"
            "    print(sum(run.state_type.value == 'COMPLETED' for run in client.read_task_runs(limit=200)))"
        )
        env = {**self.env, "PREFECT_API_URL": self.url}
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
        return int(done.stdout)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a PostgreSQL server that was started for these tests."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    programs, folder = found[-1].parent, tmp_path_factory.mktemp("postgres")
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        for parent in folder.parents:
            if parent.name.startswith("pytest-"):
                parent.chmod(parent.stat().st_mode | 0o011)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    port, data = free_port(), folder / "data"
    auth = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
    subprocess.run([*as_user, programs / "initdb", "-D", data, *auth], check=True, capture_output=True, cwd="/")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    control = [*as_user, programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options]
    subprocess.run([*control, "start"], check=True, capture_output=True, cwd="/")
    yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
    subprocess.run([*as_user, programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, cwd="/")


@pytest.mark.slow
def test_server_on_postgresql_records_every_stage(toy: Path, tmp_path: Path, postgres: str) -> None:
    with _Server(tmp_path / "home", PREFECT_SERVER_DATABASE_CONNECTION_URL=postgres) as running:
        done = _run(toy, {**running.env, "PREFECT_API_URL": running.url}, quiet=True)
        assert done.returncode == 0, done.stderr
        assert len(attempts(toy)) == 4
        deadline = time.monotonic() + 60
        while running.count_task_runs() < 4:
            assert time.monotonic() < deadline
            time.sleep(1)
        again = _run(toy, {**running.env, "PREFECT_API_URL": running.url}, quiet=True)
        assert again.returncode == 0, again.stderr
        assert len(attempts(toy)) == 4


@pytest.mark.slow
def test_server_with_a_password(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _Server(tmp_path / "home", PREFECT_SERVER_API_AUTH_STRING="admin:secret") as running:
        for password in ("", "admin:wrong"):
            monkeypatch.setenv("PREFECT_API_AUTH_STRING", password)
            with pytest.raises(PipelineError, match="nobody in without a password.* set PREFECT_API_AUTH"):
                server.check(running.url)
        env = {**running.env, "PREFECT_API_URL": running.url, "PREFECT_API_AUTH_STRING": "admin:secret"}
        done = _run(toy, env, quiet=True)
        assert done.returncode == 0, done.stderr
        assert len(attempts(toy)) == 4


@pytest.mark.faults
def test_server_that_dies_in_mid_run_loses_no_work(toy: Path, tmp_path: Path) -> None:
    (toy / "control/second").write_text("sleep 6")
    with _Server(tmp_path / "home") as running:
        env = {**running.env, "PREFECT_API_URL": running.url}
        command = [sys.executable, "-c", _EXECUTE, "{}"]
        with (tmp_path / "run.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=toy, env=env, stdout=log, stderr=subprocess.STDOUT)
        while not (toy / "sleeping.txt").exists():
            assert process.poll() is None, (tmp_path / "run.log").read_text()
            time.sleep(0.05)
        running.process.send_signal(signal.SIGKILL)
        # Three stages and the flow's end, each with up to three requests that give up after 6 s and Prefect's jitter.
        process.wait(timeout=4 * 3 * 15)
    said = (tmp_path / "run.log").read_text()
    assert f"PipelineError: the Prefect server at {running.url} stopped answering during the run (" in said
    assert "httpx" not in said
    assert "Error logging to API" not in said
    (toy / "control/second").unlink()
    before = attempts(toy)
    with _Server(tmp_path / "home") as running:
        done = _run(toy, {**running.env, "PREFECT_API_URL": running.url})
        assert done.returncode == 0, done.stderr
    assert attempts(toy).count("first") == 1, said
    assert sorted(set(attempts(toy))) == ["first", "second", "side", "third"]
    assert len(attempts(toy)) >= len(before)


def test_server_that_went_away_is_one_line_after_what_failed_before(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows import pipeline

    def call(root: Path, *_: Any, **__: Any) -> None:
        progress.current(root).finished("first@toy", progress.Outcome("failed", error="is wrong", exit_code=2))
        with pipeline.stopped_like_a_command():
            raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(pipeline, "call", call)
    monkeypatch.setattr(server, "connect", lambda *_: None)
    monkeypatch.setenv("PREFECT_API_URL", "https://host/api")
    with pytest.raises(
        PipelineError, match=r"the Prefect server at https://host/api stopped answering during the run \(.* run again"
    ):
        execute(toy, quiet=True)
    assert "boundaryflow: first@toy failed: is wrong" in capsys.readouterr().err


def test_no_telemetry_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switches = {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    before = dict(os.environ)
    try:
        for name in switches:
            os.environ.pop(name, None)
        environment.prepare(tmp_path)
        assert {name: os.environ[name] for name in switches} == switches
        os.environ["DO_NOT_TRACK"] = "0"
        environment.prepare(tmp_path)
        assert os.environ["DO_NOT_TRACK"] == "0", "what the user has set stays"
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_own_server_stays_the_one_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(server, "start", lambda *_, **__: server.Server("http://127.0.0.1:9/api", "a:b"))
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        server.connect(tmp_path, lambda _: None)
        gc.collect()
        assert PREFECT_API_URL.value() == "http://127.0.0.1:9/api"
        server._ENTERED.pop().__exit__(None, None, None)


def test_server_that_is_not_there_is_one_line() -> None:
    with pytest.raises(PipelineError, match=r"PREFECT_API_URL is http://127.0.0.1:9/api: no answer \(.*\); start"):
        server.check("http://127.0.0.1:9/api")


@pytest.fixture
def store() -> Iterator[dict[str, str]]:
    """A store that speaks S3, as the environment that reaches it."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    import boto3

    client = boto3.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"], aws_access_key_id="t", aws_secret_access_key="t")
    client.create_bucket(Bucket="results")
    client.close()
    yield env
    running.stop()


@pytest.mark.slow
def test_store_of_results_is_pushed_to_and_pulled_from(toy: Path, tmp_path: Path, store: dict[str, str]) -> None:
    dvc = [sys.executable, "-m", "dvc"]
    env = _environment(tmp_path / "home", **store)
    subprocess.run([*dvc, "remote", "add", "-q", "-d", "results", "s3://results/dvc"], cwd=toy, check=True, env=env)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    pushed = _run(toy, env, push=True, quiet=True)
    assert pushed.returncode == 0, pushed.stderr
    (toy / "attempts.txt").unlink()
    subprocess.run([*git, "add", "-A"], cwd=toy, check=True)
    subprocess.run([*git, "commit", "-q", "-m", "all"], cwd=toy, check=True)
    clone = tmp_path / "clone"
    subprocess.run([*git, "clone", "-q", str(toy), str(clone)], check=True)
    (clone / "control").mkdir()
    pulled = _run(clone, env, pull=True)
    assert pulled.returncode == 0, pulled.stderr
    assert attempts(clone) == [], "nothing was computed"
    assert (clone / "data/third/toy/out.txt").read_text() == (toy / "data/third/toy/out.txt").read_text()
    (clone / "params.yaml").write_text("length: 2\n")
    changed = _run(clone, env, pull=True)
    assert changed.returncode == 0, changed.stderr
    assert attempts(clone) == ["second", "third"], "what nobody has computed yet is computed"
    lost = _run(clone, {**env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}, push=True)
    assert lost.returncode != 0
    assert "PipelineError: dvc push: " in lost.stderr
