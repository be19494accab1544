"""Calico's data plane in small: pods as network namespaces around one node, policies as iptables rules of the node.

Rule: the order is Calico's (felix/rules/endpoints.go): established connections first, then the chain from the sending
pod, then the chain to the receiving pod; in each, tiers with accept and pass marks, Log as `-j LOG`, and a drop at the
end of a tier that applies. Selectors become lists of pod addresses, as Felix makes IP sets of them. Nothing of the
evaluator is used here.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from policies.model import Action, Direction, EntityRule, Inventory, Pod, Policy, PortRange, Rule
from policies.selector import matches
from tests.system.kernel import LOG_ALL, run

PREFIX = f"calico-packet-{os.getpid()}: "
GATEWAY = "169.254.1.1"

SENDER = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
def syn(source, target, sport, dport):
    head = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, 2, 1024, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 6, len(head))
    head = head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.sendto(head, (target, 0))
def datagram(source, target, sport, dport):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, sport))
        sock.sendto(b"x", (target, dport))
for line in sys.stdin:
    protocol, source, target, sport, dport = line.split()
    {"6": syn, "17": datagram}[protocol](source, target, int(sport), int(dport))
"""
RECEIVER = """
import socket, struct, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
print("ready", flush=True)
while True:
    data = sock.recv(2048)
    start = (data[0] & 15) * 4
    print(data[9], *struct.unpack("!HH", data[start : start + 4]), flush=True)
"""


@dataclass(frozen=True, order=True)
class Probe:
    """One packet; its source port is its own."""

    protocol: int
    source: str
    target: str
    source_port: int
    port: int


# -- rules -------------------------------------------------------------------------------------------------------------


def _known_addresses(entity: EntityRule, policy: Policy, pods: Sequence[Pod]) -> list[str]:
    """The pods that one side of a rule stands for."""
    found = []
    for pod in pods:
        address = pod.addresses[0]
        labels = dict(pod.labels)
        restricts = entity.selector or entity.not_selector
        own = not (restricts and policy.namespace) or pod.namespace == policy.namespace
        nets = not entity.nets or any(address in net for net in entity.nets)
        apart = not any(address in net for net in entity.not_nets)
        chosen = not entity.selector or matches(entity.selector, labels)
        kept = not (entity.not_selector and matches(entity.not_selector, labels))
        if own and nets and apart and chosen and kept:
            found.append(str(address))
    return found


def _ends(entity: EntityRule, flag: str, policy: Policy, pods: Sequence[Pod]) -> list[str]:
    if not any((entity.nets, entity.not_nets, entity.selector, entity.not_selector)):
        return [""]
    return [f"{flag} {address}" for address in _known_addresses(entity, policy, pods)]


def _matches(rule: Rule, policy: Policy, pods: Sequence[Pod]) -> Iterator[str]:
    protocol = f"-p {str(rule.protocol).lower()}" if rule.protocol else ""
    ports = [f"--dport {p.first}:{p.last}" for p in rule.destination.ports if isinstance(p, PortRange)] or [""]
    sources, targets = _ends(rule.source, "-s", policy, pods), _ends(rule.destination, "-d", policy, pods)
    for parts in itertools.product(sources, targets, [protocol], ports):
        yield " ".join(filter(None, parts))


def _rule_lines(chain: str, rule: Rule, policy: Policy, pods: Sequence[Pod]) -> Iterator[str]:
    target = {
        Action.ALLOW: "MARK --or-mark 0x1",
        Action.PASS: "MARK --or-mark 0x2",
        Action.DENY: "DROP",
        Action.LOG: f'LOG --log-prefix "{PREFIX}" --log-level 5',
    }[rule.action]
    for match in _matches(rule, policy, pods):
        yield f"-A {chain} {match} -j {target}"
    if rule.action in (Action.ALLOW, Action.PASS):
        mark = "0x1/0x1" if rule.action is Action.ALLOW else "0x2/0x2"
        yield f"-A {chain} -m mark --mark {mark} -j RETURN"


def _selects(policy: Policy, pod: Pod, direction: Direction) -> bool:
    in_scope = policy.namespace in (None, pod.namespace)
    return in_scope and direction in policy.types and matches(policy.selector, dict(pod.labels))


def _endpoint_lines(chain: str, pod: Pod, direction: Direction, world: Inventory) -> Iterator[str]:
    yield f"-A {chain} -j MARK --set-mark 0x0"
    tiers = [tier for tier in (*world.tiers, world.tier("default")) if tier]
    for tier in sorted(tiers, key=lambda each: each.order or 0):
        own = [p for p in world.policies if p.tier == tier.name and _selects(p, pod, direction)]
        for number, policy in enumerate(sorted(own, key=lambda p: (p.order or 0, f"{p.name}/{p.namespace or ''}"))):
            part = f"{chain}-{tier.name[:3]}{number}"
            yield f":{part} - [0:0]"
            yield f"-A {chain} -m mark --mark 0x0/0x2 -j {part}"
            yield f"-A {chain} -m mark --mark 0x1/0x1 -j RETURN"
            for rule in policy.rules(direction):
                yield from _rule_lines(part, rule, policy, world.pods)
        if own and tier.default_action is Action.DENY:
            yield f"-A {chain} -m mark --mark 0x0/0x2 -j DROP"
        yield f"-A {chain} -j MARK --and-mark 0x1"


def rendered(world: Inventory) -> str:
    """The rules of the node as iptables-restore reads them; every pod in its own pair of chains."""
    lines = ["-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"]
    for number, pod in enumerate(world.pods):
        for flag, name, direction in (
            ("-i", f"from{number}", Direction.EGRESS),
            ("-o", f"to{number}", Direction.INGRESS),
        ):
            lines += [f":{name} - [0:0]", f"-A FORWARD {flag} {pod.interface} -j {name}"]
            lines += _endpoint_lines(name, pod, direction, world)
    chains = [line for line in lines if line.startswith(":")]
    hooks = sorted((line for line in lines if line.startswith("-A FORWARD")), key=lambda line: "-o" in line)
    rest = [line for line in lines if not line.startswith((":", "-A FORWARD"))]
    return "\n".join(["*filter", *chains, *hooks, *rest, "COMMIT", ""])


# -- the node ----------------------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """Pods in namespaces of their own around one node."""

    pods: Sequence[Pod]
    tag: str
    folder: Path
    receivers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def space(self, pod: Pod | None = None) -> str:
        """The name of a pod's namespace, or of the node's."""
        return f"{self.tag}-{pod.namespace}-{pod.name}" if pod else f"{self.tag}-node"

    def apply(self, world: Inventory) -> None:
        """Replace the node's rules."""
        command = ("ip", "netns", "exec", self.space(), "iptables-restore")
        subprocess.run(command, input=rendered(world), check=True, text=True, timeout=60)

    def send(self, probes: Sequence[Probe]) -> tuple[set[Probe], Counter[Probe]]:
        """Send the packets; which arrived, and how often each was logged."""
        with open("/dev/kmsg", "rb", buffering=0) as log:
            os.set_blocking(log.fileno(), False)
            os.lseek(log.fileno(), 0, os.SEEK_END)
            for pod in self.pods:
                own = [probe for probe in probes if probe.source == str(pod.addresses[0])]
                text = "".join(f"{p.protocol} {p.source} {p.target} {p.source_port} {p.port}\n" for p in own)
                command = ("ip", "netns", "exec", self.space(pod), sys.executable, "-c", SENDER)
                subprocess.run(command, input=text, check=True, text=True, timeout=60)
            time.sleep(0.3)
            lines = _kernel_lines(log.fileno())
        by_port = {(probe.protocol, probe.source_port, probe.port): probe for probe in probes}
        arrived = {by_port[key] for key in self._received() if key in by_port}
        return arrived, Counter(by_port[key] for key in map(_key, lines) if key in by_port)

    def _received(self) -> Iterator[tuple[int, int, int]]:
        for pod in self.pods:
            for line in (self.folder / self.space(pod)).read_text().splitlines()[1:]:
                protocol, source, port = map(int, line.split())
                yield protocol, source, port

    def start(self) -> None:
        """Make the namespaces, links and routes, and listen in every pod."""
        run("ip", "netns", "add", self.space())
        for name in ("ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"):
            run("ip", "netns", "exec", self.space(), "sysctl", "-qw", f"net.ipv4.{name}")
        for pod in self.pods:
            self._plug(pod)
        for pod in self.pods:
            self._listen(pod)

    def _plug(self, pod: Pod) -> None:
        own, node, address = self.space(pod), self.space(), str(pod.addresses[0])
        run("ip", "netns", "add", own)
        run("ip", "-n", own, "link", "add", "eth0", "type", "veth", "peer", pod.interface, "netns", node)
        run("ip", "-n", own, "address", "add", f"{address}/32", "dev", "eth0")
        run("ip", "-n", own, "link", "set", "eth0", "up")
        run("ip", "-n", node, "address", "add", f"{GATEWAY}/32", "dev", pod.interface)
        run("ip", "-n", node, "link", "set", pod.interface, "up")
        run("ip", "-n", node, "route", "add", f"{address}/32", "dev", pod.interface)
        run("ip", "-n", own, "route", "add", GATEWAY, "dev", "eth0")
        run("ip", "-n", own, "route", "add", "default", "via", GATEWAY, "dev", "eth0")

    def _listen(self, pod: Pod) -> None:
        file = self.folder / self.space(pod)
        with file.open("wb") as output:
            command = ("ip", "netns", "exec", self.space(pod), sys.executable, "-c", RECEIVER)
            self.receivers.append(subprocess.Popen(command, stdout=output))
        for _ in range(100):
            if file.read_text().startswith("ready"):
                return
            time.sleep(0.05)
        raise TimeoutError(f"no receiver in {self.space(pod)}")

    def stop(self) -> None:
        """Remove what `start` made."""
        for receiver in self.receivers:
            receiver.kill()
            receiver.wait()
        for name in (self.space(), *map(self.space, self.pods)):
            run("ip", "netns", "delete", name, check=False)


def _kernel_lines(descriptor: int) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(os.read(descriptor, 8192).decode(errors="replace"))
        except BlockingIOError:
            return [line for line in lines if PREFIX in line]
        except BrokenPipeError:
            continue  # the ring buffer overtook the reader; the missing lines will fail the test


def _key(line: str) -> tuple[int, int, int]:
    fields = dict(re.findall(r"([A-Z]+)=(\S+)", line))
    return {"TCP": 6, "UDP": 17}[fields["PROTO"]], int(fields["SPT"]), int(fields["DPT"])


@contextmanager
def cluster(pods: Sequence[Pod], folder: Path) -> Iterator[Cluster]:
    """A running cluster, with namespaces allowed to log into the kernel's ring buffer."""
    made = Cluster(pods, f"dl{os.getpid()}", folder)
    before = LOG_ALL.read_text()
    try:
        made.start()
        LOG_ALL.write_text("1")
        yield made
    finally:
        LOG_ALL.write_text(before)
        made.stop()
