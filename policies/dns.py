"""Whether policies that restrict egress leave name resolution possible.

Rule: in doubt DNS is possible. A rule counts when it may allow UDP port 53 to the cluster's DNS: it names the port, or
leaves ports open towards everyone, every namespace, or something that is called like DNS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from policies.model import Action, EntityRule, NamedPort, Policy, Port, PortRange, Rule

DNS_PORT = 53
_CALLED_DNS = re.compile(r"kube-system|dns", re.IGNORECASE)


def forgets_dns(policies: Iterable[Policy]) -> bool:
    """True where no egress rule of the policies may reach DNS."""
    return not any(_may_resolve(rule) for policy in policies for rule in policy.egress)


def _may_resolve(rule: Rule) -> bool:
    if rule.action not in (Action.ALLOW, Action.PASS) or rule.protocol not in (None, "UDP", 17):
        return False
    ports = rule.destination.ports
    if ports:
        return any(map(_is_dns, ports))
    return rule.destination.services is not None or _is_wide(rule.destination)


def _is_dns(port: Port) -> bool:
    match port:
        case PortRange(first, last):
            return first <= DNS_PORT <= last
        case NamedPort(name):
            return "dns" in name or "domain" in name


def _is_wide(peer: EntityRule) -> bool:
    chosen = f"{peer.selector} {peer.namespace_selector}"
    if not chosen.strip() or peer.namespace_selector.strip() == "all()":
        return True
    return bool(_CALLED_DNS.search(chosen))
