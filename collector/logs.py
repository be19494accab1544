"""What the program says on standard error: for people as text, for machines as JSON or logfmt.

Rule: quiet unless something is wrong, never a line for each packet, and never a secret: passwords in addresses and
values named like one are replaced before anything is written, in a traceback too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import click

from analytics.options import Command

FORMATS = ("text", "json", "logfmt")
LEVELS = ("debug", "info", "warning", "error")
HIDDEN = "***"
_SECRETS = (
    re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:)[^/\s]+(?=@)"),  # user:password@ of an address
    re.compile(
        r"(?P<before>(?i:password|passwd|passphrase|secret|token|api[_-]?key)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]+"
    ),
    re.compile(r"(?P<before>(?i:authorization)\s*[=:]\s*(?i:basic|bearer)\s+)\S+"),
)
_SECRET_NAME = re.compile(r"(?i:password|passwd|passphrase|secret|token|api[_-]?key)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BARE = re.compile(r"[^\s\"=\\]+")


def redact(text: str) -> str:
    """The text without the secrets in it."""
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: found["before"] + HIDDEN, text)
    return text


def shown(text: str) -> str:
    """The text without secrets, and without what would move a terminal's cursor: names of files may hold anything."""
    clean = redact(text)
    return (
        clean if clean.isprintable() else _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), clean)
    )


def is_secret(name: str) -> bool:
    """True for names of values that are not to be shown at all."""
    return bool(_SECRET_NAME.search(name))


def _text(fields: Mapping[str, str]) -> str:
    return f"denylog: {fields['message']}" + (f"\n{fields['traceback']}" if "traceback" in fields else "")


def _json(fields: Mapping[str, str]) -> str:
    return json.dumps(fields, ensure_ascii=False)


def _logfmt(fields: Mapping[str, str]) -> str:
    shown = {key: value if _BARE.fullmatch(value) else json.dumps(value) for key, value in fields.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items())


_RENDER: dict[str, Callable[[Mapping[str, str]], str]] = {"text": _text, "json": _json, "logfmt": _logfmt}


class Formatter(logging.Formatter):
    """One line for each record, in one of the forms."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shown(record.getMessage()),
        }
        if record.exc_info:
            fields["traceback"] = redact(self.formatException(record.exc_info))
        return _RENDER[self.form](fields)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is standard error at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody listens any more: that is no reason to stop."""


def configure(form: str = "text", level: str = "warning") -> None:
    """Say everything of this level and above in this form from now on; may be called again."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Handler):
            root.removeHandler(handler)
    handler = _Handler(sys.stderr)
    handler.setFormatter(Formatter(form))
    root.addHandler(handler)
    root.setLevel(level.upper())


def tell(message: str, level: int = logging.INFO) -> None:
    """Say something that is always said: what a run did, why it ended. In text as it is, else as a record."""
    handler = next((found for found in logging.getLogger().handlers if isinstance(found, _Handler)), None)
    if handler is None or not isinstance(handler.formatter, Formatter) or handler.formatter.form == "text":
        click.echo(f"denylog: {shown(message)}" if level >= logging.ERROR else shown(message), err=True)
    else:
        handler.handle(logging.LogRecord("denylog", level, "", 0, message, None, None))


def log_options(command: Command) -> Command:
    """How a program that runs for long says what happens."""
    for option in (
        click.option("--log-format", type=click.Choice(FORMATS), default="text", show_default=True,
                     help="Form of what is said on standard error."),
        click.option("--log-level", type=click.Choice(LEVELS), default="warning", show_default=True,
                     help="How much is said."),
    ):  # fmt: skip
        command = option(command)
    return command
