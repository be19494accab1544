"""Lines by which a program admits that messages are missing from the log.

Rule: each program is believed about itself only: the kernel about printk, rsyslog and journald about what they dropped.
"""

from __future__ import annotations

import re

from parser.options import Options
from parser.outcome import Loss
from parser.plain import Frame

_SUPPRESSED = re.compile(r"(?P<source>[\w.:/-]+): (?P<count>\d+) (?:callbacks|messages) suppressed\b")
_KERNEL = (
    _SUPPRESSED,  # lib/ratelimit.c ___ratelimit, net/core/utils.c net_ratelimit
    re.compile(r"(?P<source>netfilter) please increase S_SIZE"),  # nf_log_syslog.c's buffer was too small for a line
    re.compile(r"\*\* (?P<count>\d+) (?P<source>printk) messages dropped(?: \*\*)?"),  # kernel/printk/printk.c
    re.compile(r"(?P<source>printk): (?P<count>\d+) messages dropped"),
)
_RSYSLOG = (
    re.compile(r"(?P<source>im\w+): (?P<count>\d+) messages lost due to rate-limiting"),
    re.compile(r"(?P<source>im\w+)(?:\[\d+\])? lost (?P<count>\d+) messages from pid \d+ due to rate-limiting"),
    re.compile(r"(?P<source>im\w+): begin to drop messages due to rate-limiting"),
    re.compile(r"(?:\[?[\w.-]+\]?: )?(?P<count>\d+) messages lost due to rate-limiting"),
)
_JOURNAL = (
    re.compile(r"Missed (?P<count>\d+) kernel messages"),
    re.compile(r"Suppressed (?P<count>\d+) messages from "),
    re.compile(r"/dev/kmsg buffer overrun, some messages lost"),
)
_SPEAKERS = (
    (re.compile(r"kernel|vmunix|kern\.log"), "kernel", _KERNEL),
    (re.compile(r"rsyslogd(?:-\d+)?|imklog|imjournal|imuxsock"), "rsyslogd", _RSYSLOG),
    (re.compile(r"systemd-journald?"), "systemd-journald", _JOURNAL),
)
_WORDS = re.compile("suppressed|rate-limiting|Missed|Suppressed|S_SIZE|dropped|overrun")


def loss(found: Frame, options: Options) -> Loss | None:
    """The loss that a message reports; `source` names who lost, `count` is None where the message does not say."""
    if not _WORDS.search(found.message):
        return None
    text = found.message.lstrip(" ")
    for tag, speaker, patterns in _SPEAKERS:
        if not (options.any_tag or _speaks(tag, speaker, found)):
            continue
        if match := next((match for pattern in patterns if (match := pattern.match(text))), None):
            parts = match.groupdict()
            count = parts.get("count")
            return Loss(parts.get("source") or speaker, int(count) if count else None)
    return None


def _speaks(tag: re.Pattern[str], speaker: str, found: Frame) -> bool:
    if speaker == "kernel":
        return bool(found.trusted)
    return found.tag is not None and tag.fullmatch(found.tag) is not None
