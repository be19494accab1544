"""From facts to findings: what is in order, what is not, why, and the command that puts it right.

Rule: pure; each check reads the facts and yields findings, in the order in which a packet travels: rule, kernel,
syslog, file, line, clock, store, target. A check that cannot be made is skipped with its reason, never passed over.
"""

from __future__ import annotations

from collector import doctor_data as data
from collector import doctor_felix as felix
from collector import doctor_node as node
from collector.facts import Facts
from collector.findings import Check, Finding

CHECKS: tuple[Check, ...] = (
    node.check_rules,
    node.check_kernel,
    node.check_dataplane,
    felix.check_felix,
    node.check_container,
    node.check_syslog,
    data.check_file,
    data.check_format,
    data.check_prefix,
    data.check_clock,
    data.check_store,
    data.check_targets,
)


def examine(facts: Facts) -> list[Finding]:
    """All findings, in order."""
    return [finding for check in CHECKS for finding in check(facts)]
