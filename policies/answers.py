"""What the answer of an API server says where it is not what was asked for: to a sentence, or to a pause.

Rule: each failure says what to do next, and whether waiting helps.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx2

from policies.errors import ClusterError

LONGEST_PAUSE_S = 10.0

REACH = "check the network and 'kubectl cluster-info', or name another --context"

_STATUS: Mapping[int, tuple[str, str]] = {
    401: ("does not accept the credentials (401)", "log in again, or name another --context"),
    403: ("does not let you {asked} (403: {message})", "ask for the verb, or try 'kubectl auth can-i {asked} -A'"),
}


def _message(status: Mapping[str, Any]) -> str:
    """The sentence of a Status, with its causes where there are several."""
    causes = (status.get("details") or {}).get("causes") or []
    told = "; ".join(f"{each.get('field', '')}: {each.get('message', '')}" for each in causes)
    return told or str(status.get("message") or "")


def words(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def unreachable(where: str, error: httpx2.RequestError) -> ClusterError:
    """A server that cannot be talked to."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        what = f"shows a certificate that is not trusted ({words(error)})"
        return ClusterError(where, what, "check certificate-authority in the kubeconfig")
    return ClusterError(where, f"cannot be reached ({words(error)})", REACH, retryable=True)


def refused(cluster: str, response: httpx2.Response, asked: str) -> ClusterError:
    """An answer that is no success; its body has been read."""
    with suppress(ValueError, TypeError, AttributeError):
        return failed(cluster, response.status_code, _message(response.json()), asked)
    return failed(cluster, response.status_code, response.reason_phrase, asked)


def failed(cluster: str, code: int, message: str, asked: str) -> ClusterError:
    """A failure by its HTTP code; `asked` is the verb and what it was about."""
    what, do = _STATUS.get(code, ("refuses to {asked}: {message}", ""))
    retryable = code == httpx2.codes.TOO_MANY_REQUESTS or code >= httpx2.codes.INTERNAL_SERVER_ERROR
    if retryable:
        what, do = "cannot {asked} now ({code}: {message})", "try again later"
    told = what.format(asked=asked, message=message or "no reason given", code=code)
    return ClusterError(f"cluster {cluster}", told, do.format(asked=asked), code=code, retryable=retryable)


def is_busy(response: httpx2.Response) -> bool:
    """Whether the server asks to come back later."""
    code = response.status_code
    return code == httpx2.codes.TOO_MANY_REQUESTS or (
        code == httpx2.codes.SERVICE_UNAVAILABLE and "Retry-After" in response.headers
    )


def pause(response: httpx2.Response) -> float:
    """Seconds after which it may be asked again: as long as it wants, and up to twice that.

    It tells everybody the same, and they should not all come back at once.
    """
    try:
        wanted = float(response.headers.get("Retry-After", 1))
    except ValueError:
        wanted = 1.0
    return min(wanted, LONGEST_PAUSE_S) * random.uniform(1, 2)
