"""Generate and verify Log policies for 10 000 NetworkPolicies over 1 000 namespaces; prints seconds and peak memory.

Rule: the whole command is measured in a process of its own, from the YAML file to the proved output.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, where this file would hide the package

from policies.emit import log_object  # noqa: E402
from policies.generate import generate  # noqa: E402
from policies.load import load  # noqa: E402
from policies.output import as_yaml  # noqa: E402

NAMESPACES = 1_000
POLICIES = 10
LIMIT_S = 30.0
LIMIT_MB = 500.0

_POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: allow-{app}, namespace: team-{team}}}
spec:
  podSelector: {{matchLabels: {{app: app-{app}}}}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {{matchLabels: {{app: app-{peer}}}}}
    - namespaceSelector: {{matchLabels: {{team: team-{other}}}}}
    ports: [{{port: {port}}}, {{port: 9090}}]
  egress:
  - to: [{{ipBlock: {{cidr: 10.{block}.0.0/16}}}}]
  - ports: [{{port: 53, protocol: UDP}}]
"""


def cluster() -> str:
    """The policies of a large cluster as one YAML text."""
    texts = (
        _POLICY.format(app=app, team=team, peer=(app + 1) % POLICIES, other=team % 7, port=8000 + app, block=team % 256)
        for team in range(NAMESPACES)
        for app in range(POLICIES)
    )
    return "---\n".join(texts)


def main() -> int:
    """Run once; exit code 1 where a limit is passed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cluster.yaml")
        file.write_text(cluster())
        began = time.perf_counter()
        loaded = load([str(file)])
    read = time.perf_counter()
    plan = generate(loaded.inventory)
    text = as_yaml(map(log_object, plan.made))
    done = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(loaded.inventory.policies)} policies read in {read - began:.1f} s")
    print(f"{len(plan.made)} Log policies ({len(text)} bytes) generated and verified in {done - read:.1f} s")
    print(f"total {done - began:.1f} s, peak memory {memory:.0f} MB; {plan.proof}")
    return 0 if plan.proof.holds and done - began < LIMIT_S and memory < LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
