"""Whom we talk to and who we are: a TLS context made from a target's settings (RFC 5425).

Rule: the server is always authenticated, by a chain and its name or by a fingerprint; there is no way to switch that
off. Files are read when the forwarder starts, so that what is wrong with them is told then.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Callable, Iterable
from functools import partial

from collector.forward.target import Target, Tls
from collector.settings import CollectorError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def make_context(target: Target) -> ssl.SSLContext | None:
    """The context for a target, None where it has no TLS; raises CollectorError where a file will not do."""
    tls = target.tls
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[tls.minimum]
    if tls.fingerprint:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the certificate itself is compared instead: peer_problem
    elif tls.ca:
        _load(target.name, [tls.ca], "holds no certificate in PEM", lambda: context.load_verify_locations(tls.ca))
    else:
        context.load_default_certs()
    if tls.cert:
        what = "hold no certificate with the key that belongs to it"
        load = partial(context.load_cert_chain, tls.cert, tls.key or None, _no_password)
        _load(target.name, [tls.cert, tls.key], what, load)
    return context


def peer_problem(connection: ssl.SSLSocket, tls: Tls) -> str:
    """What is wrong with the server's certificate where it is known by its fingerprint (RFC 5425, 5.2), or nothing."""
    if not tls.fingerprint:
        return ""
    found = hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
    same = hmac.compare_digest(found, tls.fingerprint)
    return "" if same else f"the server's certificate has another fingerprint: SHA256:{found}"


class _Encrypted(Exception):
    """The key is protected by a password."""


def _no_password() -> str:
    """Called by OpenSSL for a key with a password; without it OpenSSL would ask on the terminal."""
    raise _Encrypted


def _load(name: str, paths: Iterable[str], what: str, load: Callable[[], None]) -> None:
    files = [path for path in paths if path]
    for path in files:
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise CollectorError(name, f"{path}: {error.strerror}", "name a file that can be read") from error
    shown = " and ".join(files)
    try:
        load()
    except _Encrypted:
        raise CollectorError(name, f"{files[-1]}: is protected by a password", "give a key without one") from None
    except (OSError, ValueError) as error:
        raise CollectorError(name, f"{shown}: {what}", "check it with `openssl x509 -noout -text -in FILE`") from error
