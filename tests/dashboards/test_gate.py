"""Who may come in: the decision, and the running program on both ways in."""

from __future__ import annotations

import base64
import http.client
import statistics
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from click.testing import CliRunner

import cli
from dashboards.commands import check_reach, password
from dashboards.gate import COOKIE, Door
from dashboards.settings import Settings
from tests.dashboards.conftest import serving

SECRET = "correct horse battery"


def headers(**given: str) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]


def basic(secret: str) -> str:
    """An Authorization header with this password."""
    return "Basic " + base64.b64encode(f"anyone:{secret}".encode()).decode()


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1:8501", "[::1]:8501", "LOCALHOST"])
def test_own_names_may_pass(host: str) -> None:
    """Without a password this machine's names are answered."""
    assert Door(Settings("s")).refusal(headers(host=host)) is None


@pytest.mark.parametrize("host", ["evil.example:8501", "127.0.0.1.evil.example", "", "localhost.evil.example"])
def test_name_of_a_stranger_is_refused(host: str) -> None:
    """A page that rebinds its own name to 127.0.0.1 gets nothing."""
    found = Door(Settings("s")).refusal(headers(host=host))
    assert found
    assert found.status == 403


def test_password_or_its_cookie_lets_in() -> None:
    """The right password, or the cookie that came with it; nothing else."""
    door = Door(Settings("s", password=SECRET))
    assert door.refusal(headers(authorization=basic(SECRET))) is None
    assert door.refusal(headers(cookie=f"a=b; {COOKIE}={door.session}")) is None
    for given in ({}, {"authorization": basic("wrong")}, {"authorization": "Basic %%%"}, {"cookie": f"{COOKIE}=x"}):
        found = door.refusal(headers(**given))
        assert found
        assert found.status == 401


def test_proxy_header_is_needed_and_not_empty() -> None:
    """Behind a proxy a request without a user is refused."""
    door = Door(Settings("s", auth_header="X-Forwarded-User"))
    assert door.refusal(headers(x_forwarded_user="jo")) is None
    for given in ({}, {"x_forwarded_user": " "}):
        found = door.refusal(headers(**given))
        assert found
        assert found.status == 403


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "lets other machines in; say so with --expose"),
        (["--host", "0.0.0.0", "--expose"], "needs a password"),
        (["--password-file", "/nowhere"], "cannot be read"),
        (["--port", "0"], "is not in the range"),
    ],
)
def test_command_refuses_an_open_door(arguments: list[str], said: str) -> None:
    """Other machines come in only where somebody said so and said who; the sentence tells what is missing."""
    found = CliRunner().invoke(cli.cli, ["dashboard", *arguments])
    assert found.exit_code == 2
    assert said in found.output


def test_short_password_is_refused(tmp_path: Path) -> None:
    """A password that can be guessed is none."""
    (tmp_path / "p").write_text("short\n")
    with pytest.raises(click.UsageError, match="at least 8"):
        password(str(tmp_path / "p"))


def test_loopback_needs_nothing() -> None:
    """Every address of the loopback network is this machine."""
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_reach(host, expose=False, guarded=False)


def status_of(url: str, **given: str) -> tuple[int, dict[str, str]]:
    """What the server answers to a request with these headers."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in given.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers)


def test_running_program_asks_for_the_password(tmp_path: Path) -> None:
    """Page, files and WebSocket are closed without the password; with it come a cookie and a strict policy."""
    with serving(tmp_path / "store", DENYLOG_DASHBOARD_PASSWORD=SECRET) as address:
        for path in ("/", "/packets", "/_stcore/host-config", "/media/x", "/_stcore/stream"):
            assert status_of(address + path)[0] == 401, path
        status, found = status_of(address, Authorization=basic(SECRET))
        assert status == 200
        assert "frame-ancestors 'none'" in found["content-security-policy"]
        assert found["referrer-policy"] == "same-origin"
        cookie = found["set-cookie"].partition(";")[0]
        assert "HttpOnly" in found["set-cookie"]
        assert status_of(address + "/_stcore/host-config", Cookie=cookie)[0] == 200


def test_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    """A second dashboard on the same port ends at once and says what to do."""
    with serving(tmp_path / "store") as address:
        port = address.rpartition(":")[2]
        found = CliRunner().invoke(cli.cli, ["dashboard", "--port", port])
        assert found.exit_code != 0
        assert f"port {port} is in use; choose another with --port" in found.output


def test_small_answers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Each of many small answers on one connection is there at once: none is held back until the one before it was
    acknowledged, which would take 40 ms."""
    with serving(tmp_path / "nowhere") as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
        took = []
        for _ in range(40):
            begin = time.perf_counter()
            connection.request("GET", "/_stcore/health")
            connection.getresponse().read()
            took.append(time.perf_counter() - begin)
        connection.close()
    assert statistics.median(took) < 0.03, took
