"""Targets: what a URL may say, what is refused and how, and what of it is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector import CollectorError
from collector.forward.rsyslog import drop_in
from collector.forward.target import PARAMETERS, parse_target
from collector.forward.tls import make_context
from tests.forward.receivers import Certificates

FINGERPRINT = "SHA256:" + ":".join(["AB"] * 32)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("udp://logs", "udp://logs:514"),
        ("tcp://10.0.0.7:601", "tcp://10.0.0.7:601"),
        ("tls://logs.example.org", "tls://logs.example.org:6514"),
        ("relp://[2001:db8::7]", "relp://[2001:db8::7]:2514"),
        ("RELPS://Logs/", "relps://logs:2514"),
    ],
)
def test_names_and_ports(url: str, name: str) -> None:
    """Ports have defaults, IPv6 addresses brackets."""
    assert parse_target(url).name == name


def test_settings() -> None:
    """Each setting has its place."""
    target = parse_target(f"relps://h?format=cef&window=50&size=4096&facility=local4&fingerprint={FINGERPRINT}")
    assert (target.format, target.window, target.size, target.facility) == ("cef", 50, 4096, 20)
    assert target.tls is not None
    assert target.tls.fingerprint == "ab" * 32
    named = parse_target("tls://h?ca=/etc/a+b%20c.pem").tls
    assert named is not None
    assert named.ca == "/etc/a+b c.pem"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("logs.example.org", "is no target"),
        ("http://h", "is no target"),
        ("tcp://", "is no target"),
        ("tcp://h:99999", "Port out of range"),
        ("tcp://h:0", "port 0"),
        ("tcp://[::1", "is no target"),
        ("tcp://a..b", "no host can have that name"),
        (f"tcp://{'a' * 64}.example.org", "no host can have that name"),
        ("tcp://%00", "no host can have that name"),
        ("tls://h?server-name=a..b", "expected the name in the server's certificate"),
        ("tcp://h/path", "has a path"),
        ("tcp://h?colour=red", "unknown setting 'colour'"),
        ("tcp://h?format=xml", "format is 'xml'; expected rfc5424 or"),
        ("tcp://h?format=cef&format=ecs", "given twice"),
        ("tcp://h?ca=/ca.pem", "ca contradicts tcp://; it goes with tls:// and relps:// only"),
        ("relp://h?cert=/c.pem", "cert contradicts relp://"),
        ("udp://h?min-tls=1.3", "min-tls contradicts udp://"),
        ("tls://h?key=/k.pem", "key is given without cert"),
        (f"tls://h?fingerprint={FINGERPRINT}&ca=/ca.pem", "fingerprint and ca contradict each other"),
        (f"tls://h?fingerprint={FINGERPRINT}&server-name=x", "fingerprint and server-name contradict each other"),
        ("tls://h?fingerprint=SHA256:12", "expected SHA256:"),
        ("tls://h?min-tls=1.1", "expected 1.2 or 1.3"),
        ("tls://h?window=5", "window contradicts tls://"),
        ("relp://h?framing=lines", "framing contradicts relp://"),
        ("tcp://h?size=10", "expected a number from 480"),
        ("tcp://h?sd-id=mine", "expected NAME@NUMBER"),
        ("tcp://h?sd-id=a@1&format=cef", "sd-id contradicts format=cef"),
    ],
)
def test_refusals(url: str, what: str) -> None:
    """What will not do, or contradicts itself, is refused in one sentence."""
    with pytest.raises(CollectorError) as caught:
        parse_target(url)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["tls://me:s3cret@h", "tls://s3cret@h/x?y", "s3cret@h?z=1", "tcp://me:s3cret@h:x"])
def test_secrets_are_not_shown(url: str) -> None:
    """A password in a URL is refused, and in no error."""
    with pytest.raises(CollectorError) as caught:
        parse_target(url)
    assert "s3cret" not in str(caught.value)


def test_every_setting_is_documented() -> None:
    """docs/forwarding.md has a row for each setting."""
    text = (Path(__file__).parents[2] / "docs" / "forwarding.md").read_text()
    assert [name for name in PARAMETERS if f"| `{name}` |" not in text] == []


def test_certificates_are_checked_at_start(certificates: Certificates, tmp_path: Path) -> None:
    """A file that is absent, is no certificate, or does not belong to the key is told before anything is sent."""
    here = certificates.path
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for query, what in (
        ("ca=/nowhere.pem", "/nowhere.pem: No such file"),
        (f"ca={junk}", "holds no certificate"),
        (f"cert={here('client.pem')}", "hold no certificate with the key"),
        (f"cert={here('client.pem')}&key={here('server.key')}", "hold no certificate with the key"),
    ):
        with pytest.raises(CollectorError) as caught:
            make_context(parse_target(f"tls://h?{query}"))
        assert what in str(caught.value)
    assert make_context(parse_target(f"tls://h?cert={here('client.pem')}&key={here('client.key')}"))
    assert make_context(parse_target("tcp://h")) is None


def test_rsyslog_cannot_do_everything() -> None:
    """What rsyslog cannot write or compare is refused, not left out."""
    for url in ("tcp://h?format=cef", "tcp://h?facility=local4", f"relps://h?fingerprint={FINGERPRINT}"):
        with pytest.raises(CollectorError):
            drop_in(parse_target(url), ["calico-packet"])
