"""What is said on standard error: forms, secrets, and text that would move a terminal's cursor."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator

import pytest

from collector import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The loggers as they were, after each test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]


def said(form: str, message: str, capsys: pytest.CaptureFixture[str]) -> str:
    """How a warning is written in a form."""
    logs.configure(form)
    logging.getLogger("collector.test").warning("%s", message)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("tls://me:hunter2@siem:6514?ca=x", "tls://me:***@siem:6514?ca=x"),
        ("postgres://u:p@ss@h/db", "postgres://u:***@h/db"),
        ('password="a b"', 'password="*** b"'),
        ("api_key: abc, next", "api_key: ***, next"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("relp://siem:2514 is away", "relp://siem:2514 is away"),
        ("/var/log/syslog: No such file", "/var/log/syslog: No such file"),
    ],
)
def test_secrets_are_replaced(text: str, clean: str) -> None:
    """Passwords in addresses and values named like secrets never reach the log; everything else does."""
    assert logs.redact(text) == clean


@pytest.mark.parametrize("form", logs.FORMATS)
def test_no_form_lets_a_secret_or_an_escape_through(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a password nor a terminal's escape sequence in a file's name is written as it is."""
    found = said(form, "tcp://a:hunter2@h: /var/log/\x1b[2Jx\rdenylog: fine", capsys)
    assert "hunter2" not in found
    assert "\x1b" not in found
    assert "\r" not in found
    assert found.count("\n") == 1


def test_json_and_logfmt_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    """A record in either form gives back level, logger and message, whatever the message holds."""
    message = 'a "b" = c\n=d'
    record = json.loads(said("json", message, capsys))
    assert (record["level"], record["logger"], record["message"]) == ("warning", "collector.test", message)
    words = dict(word.split("=", 1) for word in shlex.split(said("logfmt", 'a "b" = c', capsys)))
    assert words["message"] == 'a "b" = c'


def test_a_traceback_is_part_of_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception is one JSON object, its secrets replaced."""
    logs.configure("json")
    try:
        raise ValueError("tcp://a:hunter2@h")
    except ValueError:
        logging.getLogger("x").exception("oh")
    record = json.loads(capsys.readouterr().err)
    assert "ValueError: tcp://a:***@h" in record["traceback"]


def test_quiet_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --log-level nothing below a warning is said."""
    logs.configure()
    logging.getLogger("x").info("hello")
    assert capsys.readouterr().err == ""
