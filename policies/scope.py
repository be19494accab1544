"""What selectors really select: the namespace and service-account terms that Felix adds, and the labels it adds.

Rule: the terms are those of libcalico-go/lib/backend/syncersv1/updateprocessors (networkpolicyprocessor.go,
globalnetworkpolicyprocessor.go, rules.go) and the labels those of Felix' inheritance index
(felix/labelindex/label_inheritance_index.go: an endpoint's own labels win over those of its profiles).
"""

from __future__ import annotations

from policies.model import EntityRule, Inventory, Labels, NetworkSet, Pod, Policy
from policies.selector import All, And, Compare, Global, Has, Not, Or, Term, Within, canonical, parse, prefixed

NAMESPACE = "projectcalico.org/namespace"
ORCHESTRATOR = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX = "pcns."
SERVICE_ACCOUNT_PREFIX = "pcsa."

LONGEST_ACCOUNT = 62
"""A service account's name becomes a label only below 63 characters (workload_endpoint_default.go)."""


def both(*terms: Term | None) -> Term:
    """The conjunction of the terms that are given; `all()` where none is."""
    given = tuple(term for term in terms if term is not None and not isinstance(term, All))
    return And(given) if len(given) > 1 else given[0] if given else All()


def in_namespace(namespace: str) -> Term:
    """Endpoints and network sets of one namespace."""
    return Compare(NAMESPACE, "==", namespace)


def _namespaced(term: Term) -> Term:
    """`all()` in a namespace selector means "in any namespace", `global()` "in none" (rules.go)."""
    match term:
        case All():
            return Has(NAMESPACE)
        case Global():
            return Not(Has(NAMESPACE))
        case Not(inner):
            return Not(_namespaced(inner))
        case And(terms):
            return And(tuple(map(_namespaced, terms)))
        case Or(terms):
            return Or(tuple(map(_namespaced, terms)))
    return term


def namespace_term(selector: str) -> Term:
    """A namespace selector as a term about the labels that endpoints inherit. Raises SelectorError."""
    return _namespaced(prefixed(parse(selector), NAMESPACE_PREFIX))


def _account_term(selector: str) -> Term | None:
    return prefixed(parse(selector), SERVICE_ACCOUNT_PREFIX) if selector else None


def policy_term(policy: Policy) -> Term:
    """The endpoints that a policy selects. Raises SelectorError."""
    own = parse(policy.selector)
    if policy.namespace:
        return both(own, in_namespace(policy.namespace), _account_term(policy.service_account_selector))
    return parse(_global_selector(policy))


def _global_selector(policy: Policy) -> str:
    """The text that Calico makes of a cluster-wide policy's selectors (globalnetworkpolicyprocessor.go).

    It replaces `all()` in all that it has so far, so in the policy's own selector, too: beside a namespaceSelector
    `selector: all()` leaves host endpoints out, which an empty one may select.
    """
    text = policy.selector.strip()
    for selector, prefix, label in (
        (policy.namespace_selector, NAMESPACE_PREFIX, NAMESPACE),
        (policy.service_account_selector, SERVICE_ACCOUNT_PREFIX, SERVICE_ACCOUNT),
    ):
        if selector:
            added = canonical(prefixed(parse(selector), prefix))
            text = (f"({text}) && {added}" if text else added).replace("all()", f"has({label})")
    return text


def _entity_space(entity: EntityRule, namespace: str | None) -> Term | None:
    if entity.namespace_selector:
        return namespace_term(entity.namespace_selector)
    restricts = entity.selector or entity.not_selector or entity.service_accounts is not None
    return in_namespace(namespace) if namespace and restricts else None


def _entity_accounts(entity: EntityRule) -> Term | None:
    accounts = entity.service_accounts
    if accounts is None:
        return None
    names = Within(SERVICE_ACCOUNT, False, tuple(sorted(set(accounts.names)))) if accounts.names else None
    return both(names, _account_term(accounts.selector))


def peer_term(entity: EntityRule, namespace: str | None) -> Term | None:
    """Which labels one side of a rule asks for; None where any address will do. Raises SelectorError.

    `namespace` is that of the policy. A selector that is given, be it `all()`, leaves out addresses without labels.
    """
    space, accounts = _entity_space(entity, namespace), _entity_accounts(entity)
    if space is None and accounts is None and not entity.selector.strip():
        return None
    return both(parse(entity.selector), space, accounts)


def excluded_term(entity: EntityRule) -> Term | None:
    """Which labels one side of a rule excludes, in any namespace; None where none. Raises SelectorError."""
    return parse(entity.not_selector) if entity.not_selector.strip() else None


def namespace_labels(name: str, inventory: Inventory) -> dict[str, str]:
    """What the namespace's profile hands on; Kubernetes itself sets the label `kubernetes.io/metadata.name`."""
    own = next((each.labels for each in inventory.namespaces if each.name == name), {})
    labels = {"kubernetes.io/metadata.name": name, **own, "projectcalico.org/name": name}
    return {NAMESPACE_PREFIX + key: value for key, value in labels.items()}


def _account_labels(namespace: str, name: str, inventory: Inventory) -> dict[str, str]:
    accounts = (each for each in inventory.service_accounts if (each.namespace, each.name) == (namespace, name))
    labels = {**next((each.labels for each in accounts), {}), "projectcalico.org/name": name}
    return {SERVICE_ACCOUNT_PREFIX + key: value for key, value in labels.items()}


def pod_labels(pod: Pod, inventory: Inventory) -> Labels:
    """All labels by which selectors know a pod."""
    account = pod.service_account or "default"
    added = {NAMESPACE: pod.namespace, ORCHESTRATOR: "k8s"}
    if len(account) <= LONGEST_ACCOUNT:
        added[SERVICE_ACCOUNT] = account
    inherited = namespace_labels(pod.namespace, inventory) | _account_labels(pod.namespace, account, inventory)
    return {**inherited, **pod.labels, **added}


def network_set_labels(network_set: NetworkSet, inventory: Inventory) -> Labels:
    """All labels by which selectors know the addresses of a network set."""
    if network_set.namespace is None:
        return network_set.labels
    inherited = namespace_labels(network_set.namespace, inventory)
    return {**inherited, **network_set.labels, NAMESPACE: network_set.namespace}
