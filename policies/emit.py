"""Generated policies as objects that both calicoctl and kubectl apply.

Rule: fields stand in the order and spelling of the example in Calico's and IBM's guides (empty `source` and
`destination` written out, the default tier not), and a namespace is written only where a source writes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.generate import LogPolicy
from policies.model import Direction, Policy, Rule
from policies.render import Data, policy_object, rule_object


def _rule(rule: Rule) -> Data:
    return {"action": rule.action.value, "destination": {}, "source": {}} | rule_object(rule)


def _spec(policy: Policy, written: Mapping[str, object]) -> Data:
    spec = {key: value for key, value in written.items() if (key, value) != ("tier", "default")}
    for direction in Direction:
        rules = policy.rules(direction)
        if direction in policy.types:
            spec[direction.value.lower()] = [_rule(rule) for rule in rules]
    return spec


def _names_namespace(sources: Sequence[Policy]) -> bool:
    """Whether some source writes its namespace; a policy without one is applied to the namespace of the moment."""
    metadata = (each.source.document.get("metadata") for each in sources if each.source)
    return not sources or any(isinstance(found, Mapping) and found.get("namespace") for found in metadata)


def log_object(made: LogPolicy) -> Data:
    """One generated policy as a projectcalico.org/v3 object."""
    data = policy_object(made.policy)
    data["spec"] = _spec(made.policy, data["spec"])
    if made.policy.namespace == "default" and not _names_namespace(made.sources):
        del data["metadata"]["namespace"]
    return data
