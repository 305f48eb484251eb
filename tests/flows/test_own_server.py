"""The Prefect server that `serve` and `run` start for themselves: who may talk to it, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import json
import os
import socket
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boundaryflow.errors import ParamsError, PipelineError
from flows import environment, processes, server, serving, stage_process
from flows.prefect_server import SameOrigin
from tests.flows.toy import QUIET_DVC

pytestmark = [
    pytest.mark.filterwarnings(QUIET_DVC),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    """A server as `serve` starts it."""
    root, before = tmp_path_factory.mktemp("served $HOME"), dict(os.environ)
    environment.prepare(root)
    begun: list[subprocess.Popen[str]] = []

    def start(*words: Any, _start: Any = processes.start, **named: Any) -> subprocess.Popen[str]:
        begun.append(_start(*words, **named))
        return begun[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "start", start)
        started = server.start(root, server.listening_socket(0), has_page=True)
    yield started
    processes.stop(begun[0])  # its scheduler would go on beside all further tests
    os.environ.clear()
    os.environ.update(before)


def _ask(running: server.Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    port = int(running.url.split(":")[2].removesuffix("/api"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body=b"{}" if method == "POST" else None, headers=headers)
    answer = connection.getresponse()
    answer.read()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return found


def _basic(password: str) -> str:
    return f"Basic {b64encode(password.encode()).decode()}"


def test_only_who_has_the_password_is_let_in(running: server.Server) -> None:
    for password in ("", "boundaryflow:", "boundaryflow:guess"):
        assert _ask(running, "/api/deployments/filter", "POST", Authorization=_basic(password))[0] == 401
    assert _ask(running, "/api/deployments/filter", "POST", Authorization=_basic(running.password))[0] == 200
    assert len(running.password) > 40
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert running.password.partition(":")[2].encode() not in entry.read_bytes()
        except OSError:  # the process has ended
            continue


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "evil.example:4200"},
        {"Host": "127.0.0.1"},
        {"Host": "localhost"},
    ],
    ids=lambda headers: " ".join(*headers.items()),
)
def test_web_page_of_another_origin_and_another_name_are_refused(
    running: server.Server, headers: dict[str, str]
) -> None:
    for method, path in (("POST", "/api/deployments/filter"), ("OPTIONS", "/api/flow_runs/"), ("GET", "/api/health")):
        asked = {"Authorization": _basic(running.password), "Access-Control-Request-Method": "POST", **headers}
        status, answered = _ask(running, path, method, **asked)
        assert status == 403
        assert not [name for name in answered if name.startswith("access-control")]


def test_own_page_is_served_and_may_ask(running: server.Server) -> None:
    own = running.url.removesuffix("/api")
    assert _ask(running, "/")[0] == 200
    assert (
        _ask(running, "/api/deployments/filter", "POST", Authorization=_basic(running.password), Origin=own)[0] == 200
    )


def test_websocket_of_another_page_is_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def app(*_: Any) -> None:
        raise AssertionError("the request was let through")

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:4200"), (b"origin", b"http://evil.example")]
    asyncio.run(SameOrigin(app, "127.0.0.1:4200")({"type": "websocket", "headers": headers}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_port_that_somebody_has_is_refused_before_a_password_is_sent(running: server.Server) -> None:
    port = int(running.url.split(":")[2].removesuffix("/api"))
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as other:
            if address != "127.0.0.1":
                other.bind((address, 0))
                other.listen()
                port = other.getsockname()[1]
            with pytest.raises(
                PipelineError, match=f"port {port} of 127.0.0.1 is in use by another.* --port.*PREFECT_API"
            ):
                server.listening_socket(port)


def test_only_runs_of_this_checkout_are_said_to_have_crashed(running: server.Server, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    ours, theirs = (serving.deployment_name(tmp_path / folder, "some") for folder in ("a", "b"))
    assert ours != theirs
    values: dict[Any, str] = {PREFECT_API_URL: running.url, PREFECT_API_AUTH_STRING: running.password}
    with temporary_settings(values), get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("bulk_edit")
        runs: dict[str, Any] = {}
        for name in (ours, theirs):
            deployment = client.create_deployment(flow_id=flow, name=name)
            runs[name] = client.create_flow_run_from_deployment(deployment, state=Running()).id
        serving._bury_dead_runs([ours])
        states = {name: client.read_flow_run(run).state_name for name, run in runs.items()}
    assert states == {ours: "Crashed", theirs: "Running"}


def test_flow_has_no_parameter_that_names_a_path_and_refuses_what_is_no_job() -> None:
    from flows import jobs, pipeline

    assert set(inspect.signature(jobs.bulk_edit.fn).parameters) == {"job", "again", "wait_s"}
    assert set(inspect.signature(jobs.augment.fn).parameters) == {"job", "wait_s"}
    assert "root" not in inspect.signature(pipeline.run_graph.fn).parameters
    with pytest.raises(ParamsError, match="bulk_edit: job must be a name"):
        jobs.bulk_edit.fn(["--inbox", "/etc"])
    for wait_s in (float("nan"), float("inf"), -1, "1", None):
        with pytest.raises(ParamsError, match="wait_s must be a number of seconds from 0 to"):
            environment.checked_wait(wait_s)


def test_password_is_in_a_file_of_this_user_alone_and_not_given_to_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / environment.STATE_FOLDER).mkdir(parents=True)
    (tmp_path / environment.STATE_FOLDER / "prefect-password").symlink_to(tmp_path / "elsewhere")
    path = server.keep_password(tmp_path, server.Server("http://127.0.0.1:1/api", "boundaryflow:secret"))
    assert path.read_text() == "boundaryflow:secret\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "boundaryflow:secret")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    assert not [name for name, value in stage_process._environment().items() if "secret" in value]
    shown = server._server_environment(server.Server("http://127.0.0.1:1/api", "boundaryflow:other"), 1, has_page=False)
    assert [name for name, value in shown.items() if "other" in value] == ["PREFECT_SERVER_API_AUTH_STRING"]
    assert not [name for name, value in shown.items() if "secret" in value]


def test_own_server_that_dies_at_once_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = processes.start
    monkeypatch.setattr(processes, "start", lambda command, **options: started(["/bin/false"], **options))
    with pytest.raises(
        PipelineError, match=r"the Prefect server for this run did not start; .*prefect-server\.log says"
    ):
        server.start(tmp_path, server.listening_socket(0))


class _Listener:
    """Takes one request and answers it as told."""

    def __init__(self, answer: str) -> None:
        self._socket, self._answer, self.asked = socket.create_server(("127.0.0.1", 0)), answer, list[str]()
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> _Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self.asked.append(connection.recv(65536).decode())
                    connection.sendall(self._answer.encode())
        except OSError:
            return


def test_loopback_is_not_asked_by_proxy_and_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret")
    fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with _Listener(fine) as proxy, _Listener(fine) as api, _Listener(fine) as stranger:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert server.refusal(f"http://127.0.0.1:{api.port}/api", timeout_s=10) == ""
        assert len(api.asked) == 1
        assert not proxy.asked
        moved = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{stranger.port}/\r\nContent-Length: 0\r\n\r\n"
        with _Listener(moved) as redirecting:
            reason = server.refusal(f"http://127.0.0.1:{redirecting.port}/api", timeout_s=10)
        assert reason.startswith("status 302: it sends us to another address")
        assert not stranger.asked


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("SSH-2.0-OpenSSH\r\n", "BadStatusLine"),
        ("HTTP/1.1 200 OK\r\n" + "a: b\r\n" * 101 + "\r\n", "HTTPException"),
        (f"HTTP/1.1 200 OK\r\na: {'b' * 70_000}\r\n\r\n", "LineTooLong"),
    ],
    ids=["ssh", "many-headers", "long-header"],
)
def test_other_program_at_the_servers_address_is_one_line(answer: str, name: str) -> None:
    with (
        _Listener(answer) as other,
        pytest.raises(
            PipelineError, match=rf"no answer \(another program than a Prefect server is there: {name}\); start"
        ),
    ):
        server.check(f"http://127.0.0.1:{other.port}/api")


def test_server_that_never_ends_its_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:

        def drip() -> None:
            connection, _ = own.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while True:
                    connection.sendall(b"a: b\r\n")
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        reason = server.refusal(f"http://127.0.0.1:{own.getsockname()[1]}/api", timeout_s=1)
    assert reason == "timed out after 1 s"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "user", ["me:hun/ter2@", "me:hun#ter2@", "me:hun?ter2@", "me:hun ter2@", "me:hunter2@", "hun ter2:", "me:hun"]
)
def test_password_in_a_servers_address_is_refused_and_not_shown(user: str) -> None:
    with pytest.raises(PipelineError, match="no answer ") as refused:
        server.check(f"http://{user}127.0.0.1:9/api")
    if "@" in user:
        assert "hun" not in str(refused.value)
        assert "put USER:PASSWORD into PREFECT_API_AUTH_STRING instead" in str(refused.value)
    assert "nonnumeric" not in str(refused.value)


@pytest.mark.parametrize(
    ("known", "then"),
    [(None, "127.0.0.1,localhost,::1"), ("a.example, localhost", "a.example,localhost,127.0.0.1,::1"), ("*", "*")],
)
def test_children_are_told_to_reach_this_machine_without_the_proxy(
    known: str | None, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if known is not None:
        monkeypatch.setenv("no_proxy", known)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    environment._bypass_proxy()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == then


def test_server_of_the_users_profile_is_used_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_PROFILE", [])
    for name in ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    profiles = tmp_path / ".prefect/profiles.toml"
    profiles.parent.mkdir()
    profiles.write_text(
        'active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://me:s3cret@127.0.0.1:9/api"\n'
        'PREFECT_API_AUTH_STRING = "a:b"\n[profiles.other]\n'
    )
    environment.prepare(tmp_path / "checkout")
    assert (environment.server_url(), os.environ["PREFECT_API_AUTH_STRING"]) == (
        "http://me:s3cret@127.0.0.1:9/api",
        "a:b",
    )
    with pytest.raises(PipelineError) as told:
        server.check(environment.server_url())
    assert f"PREFECT_API_URL of the Prefect profile 'team' ({profiles}) is http://***@127.0.0.1:9/api" in str(
        told.value
    )
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("content", [b"active = 3\n", b"\xff", b"[[", b"profiles = 1\nactive = 'a'\n"])
def test_damaged_profile_is_left_to_prefect(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "profiles.toml").write_bytes(content)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    environment._take_server_of_profile()
    assert environment.server_url() == ""


def test_path_with_what_prefect_and_yaml_expand_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.logging.configuration import load_logging_config

    monkeypatch.delenv("PREFECT_LOGGING_SETTINGS_PATH", raising=False)
    root = tmp_path / "a $HOME ${X} it's %s #"
    environment.prepare(root)
    found = load_logging_config(Path(os.environ["PREFECT_LOGGING_SETTINGS_PATH"]))
    assert found["handlers"]["file"]["filename"] == str(root / environment.LOG_FOLDER / "prefect.log")


def test_runner_keeps_its_files_in_the_checkout(tmp_path: Path) -> None:
    import tempfile

    from prefect.runner import Runner

    before = tempfile.gettempdir()
    runner = serving._in_folder(tmp_path / "state", lambda: Runner(limit=1))
    assert runner._tmp_dir.is_relative_to(tmp_path / "state")
    assert tempfile.gettempdir() == before


@pytest.mark.parametrize("every_s", [float("nan"), float("inf"), -1.0, 0.0, 1e300, None])
def test_time_between_runs_is_checked(every_s: float | None) -> None:
    with pytest.raises(ParamsError, match=r"--every .*: must be a number of seconds from 1 to 31622400"):
        serving.check_times(None, every_s, 4200)


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_port_is_checked(port: int) -> None:
    with pytest.raises(ParamsError, match=f"--port {port}: must be a whole number from 1 to 65535"):
        serving.check_times("0 2 * * *", None, port)


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "-1", "1e9"])
def test_retry_delay_is_checked(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_RETRY_DELAY_S", value)
    with pytest.raises(
        ParamsError, match=f"BOUNDARYFLOW_RETRY_DELAY_S is '{value}', must be a number of seconds from 0"
    ):
        environment.retry_delay_s()


def test_record_of_a_delivery_has_nothing_of_the_machine() -> None:
    from boundaryflow.jobs import run_record

    private = {"error", "inbox", "outbox", "failures", "items", "machine", "params", "model"}
    assert not private & set(run_record._FOR_RECEIVERS)
    assert json.loads(run_record._line({"a": 1})) == {"a": 1}
