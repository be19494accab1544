"""What may be a name, a label, an annotation or a port's name.

Rule: Kubernetes' rules (k8s.io/apimachinery/pkg/util/validation) and, for policies and tiers, the narrower ones of
Calico (libcalico-go/lib/validator/v3/validator.go). Each check gives the complaint, or None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from policies.model import Labels

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
MAX_NAME = 253
MAX_LABEL = 63
MAX_ANNOTATIONS = 256 * 1024
"""Bytes of all annotations of an object together, keys and values."""

_ONE_DOT = rf"({LABEL}\.)?{LABEL}"
_NAMESPACED = rf"{LABEL}(\.{LABEL})?|(knp|ossg)\.default\.{SUBDOMAIN}"
_PATTERNS: Mapping[str, tuple[str, int, str]] = {
    "NetworkPolicy": (_NAMESPACED, MAX_NAME, "lower case letters, digits and '-', with at most one dot"),
    "StagedNetworkPolicy": (_NAMESPACED, MAX_NAME, "lower case letters, digits and '-', with at most one dot"),
    "GlobalNetworkPolicy": (_ONE_DOT, MAX_NAME, "lower case letters, digits and '-', with at most one dot"),
    "StagedGlobalNetworkPolicy": (_ONE_DOT, MAX_NAME, "lower case letters, digits and '-', with at most one dot"),
    "Tier": (LABEL, MAX_LABEL, "lower case letters, digits and '-', without a dot"),
}
_OTHERS = (SUBDOMAIN, MAX_NAME, "lower case letters, digits, '-' and '.'")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PORT = re.compile(r"[-a-z0-9]{1,15}")


def name_complaint(kind: str, name: str) -> str | None:
    """What is wrong with the name of a Calico object of this kind; "" is any kind of Kubernetes."""
    pattern, longest, words = _PATTERNS.get(kind, _OTHERS)
    if len(name) > longest:
        return f"the name is too long by {len(name) - longest} bytes; at most {longest}"
    if not re.fullmatch(pattern, name):
        return f"the name {name!r} must be made of {words}, starting and ending with a letter or digit"
    return None


def subdomain_complaint(name: str) -> str | None:
    """What is wrong with a reference to another object (tier, service account, service, node)."""
    good = re.fullmatch(SUBDOMAIN, name) and len(name) <= MAX_NAME
    return None if good else f"{name!r} is not a name: at most {MAX_NAME} lower case letters, digits, '-' and '.'"


def qualified_complaint(key: str) -> str | None:
    """What is wrong with the key of a label or annotation."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not re.fullmatch(SUBDOMAIN, prefix) or len(prefix) > MAX_NAME):
        return f"the prefix of key {key!r} must be a DNS name"
    if len(name) > MAX_LABEL or not _QUALIFIED.fullmatch(name):
        return (
            f"the key {key!r} must be at most 63 letters, digits, '-', '_' and '.', with a letter or digit at each end"
        )
    return None


def value_complaint(value: str) -> str | None:
    """What is wrong with the value of a label."""
    if not value or (len(value) <= MAX_LABEL and _QUALIFIED.fullmatch(value)):
        return None
    return (
        f"the value {value!r} must be at most 63 letters, digits, '-', '_' and '.', with a letter or digit at each end"
    )


def port_name_complaint(name: str) -> str | None:
    """What is wrong with the name of a port (IANA service name)."""
    good = _PORT.fullmatch(name) and re.search("[a-z]", name) and "--" not in name and name.strip("-") == name
    return None if good else f"{name!r} is no port name: at most 15 lower case letters, digits and '-', with a letter"


def annotation_complaints(annotations: Labels) -> Iterator[tuple[str, str]]:
    """Pairs of key and complaint; the key is "" for the size of them all."""
    for key in annotations:
        if complaint := qualified_complaint(key.lower()):
            yield key, complaint
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        yield "", f"the annotations are too large by {size - MAX_ANNOTATIONS} bytes"


def label_complaints(labels: Labels) -> Iterator[tuple[str, str]]:
    """Pairs of key and complaint."""
    for key, value in labels.items():
        for complaint in (qualified_complaint(key), value_complaint(value)):
            if complaint:
                yield key, complaint
