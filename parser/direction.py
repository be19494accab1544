"""Which way a packet went past a pod, told by the names of its interfaces.

Rule: Calico names the host's end of a pod's veth after `InterfacePrefix` (felix config, default `cali`); out through it
is to a pod, in through it is from a pod.
"""

from __future__ import annotations


def direction(in_interface: str | None, out_interface: str | None, prefix: str) -> str | None:
    """`ingress` to a pod, `egress` from a pod, `host` where no pod is involved; None from pod to pod, which is both."""
    source = (in_interface or "").startswith(prefix)
    destination = (out_interface or "").startswith(prefix)
    if source and destination:
        return None
    if destination:
        return "ingress"
    return "egress" if source else "host"
