"""Kubernetes label selectors as Calico's selector text.

Rule: the spelling is that of k8sSelectorToCalico (conversion.go): `! has(k)` with its space, spaces inside braces,
label keys sorted, expressions in their order, values neither sorted nor escaped.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.written import Document, items, labels, text

ORCHESTRATOR = "projectcalico.org/orchestrator == 'k8s'"
"""Opens every pod selector: it keeps host endpoints and network sets out."""

_SPELLED = {"In": "{key} in {{ '{values}' }}", "NotIn": "{key} not in {{ '{values}' }}"} | {
    "Exists": "has({key})",
    "DoesNotExist": "! has({key})",
}


def selector_text(selector: Document | None, *, pods: bool) -> str:
    """Calico's text for a selector of pods or of namespaces; None is "every pod" or "" (no word about namespaces)."""
    terms = [*([ORCHESTRATOR] if pods else []), *(_terms(selector) if selector is not None else ())]
    if not terms:
        return "" if selector is None or not _is_empty(selector) else "all()"
    return " && ".join(terms)


def _is_empty(selector: Document) -> bool:
    return not labels(selector, "matchLabels") and not items(selector, "matchExpressions")


def _terms(selector: Document) -> Iterator[str]:
    for key, value in sorted(labels(selector, "matchLabels").items()):
        yield f"{key} == '{value}'"
    for wanted in items(selector, "matchExpressions"):
        spelled = _SPELLED.get(text(wanted, "operator"))
        if spelled is not None:  # Calico leaves out what it does not know
            yield spelled.format(key=text(wanted, "key"), values="', '".join(items(wanted, "values")))
