"""The frame around a kernel message: who wrote the line, when, where, and whether it was the kernel.

Rule: what wraps a line (JSON, a container runtime, a journal entry) comes off first, then the frame of the line itself.
A wrapper that names the program decides whom to trust; the text inside it does not get a say.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from parser.journal import entry_frame
from parser.options import Options
from parser.plain import Frame, text_frame
from parser.wrapped import container_frame, json_frame

__all__ = ["Frame", "clean_frame", "frame", "original"]

NOISE = re.compile("\x1b\\[[0-9;]*[A-Za-z]|\x00|\ufeff")
"""Colours (dmesg --color), the NULs a crash leaves in a file, byte order marks."""


def frame(line: bytes | str, options: Options, *, anchor: datetime) -> Frame:
    """The frame of one record (a line, or a journal entry of several); never raises, and costs a few microseconds.

    Inside JSON and behind /dev/kmsg's escapes, one character of the message may be several of the line.
    """
    text, found = clean_frame(line, options, anchor)
    return replace(found, message_offset=original(text, found.message_offset))


def clean_frame(line: bytes | str, options: Options, anchor: datetime) -> tuple[str, Frame]:
    """The decoded line, and the frame with its offset counted in the line without noise."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else _encodable(line)
    clean = text if text.isprintable() else NOISE.sub("", text)
    clean = clean.rstrip("\r\n")
    found = json_frame(clean, options, anchor) or container_frame(clean, options, anchor)
    return text, found or entry_frame(line, options, anchor) or text_frame(clean, options, anchor)


def original(text: str, position: int) -> int:
    """Where a position in the line without noise lies in `text`."""
    for noise in NOISE.finditer(text):
        if noise.start() > position:
            break
        position += noise.end() - noise.start()
    return position


def _encodable(text: str) -> str:
    """Lone surrogates have no place in a table, nor in UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
