"""Makes the samples, the same at every run (fixed seed): five clean days, one labelled day, the inventory, the labels.

    python -m samples.make [FOLDER]

Rule: what is planted is said in `labels.json`, with the rule that has to find it; the clean days hold nothing but what
a healthy cluster shows. `syslog.1.gz` has the clean days, `syslog` the labelled one, as logrotate would leave them.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from samples.cluster import CLEAN_DAYS, DAY, PODS, REUSED, inventory
from samples.node_log import NodeLog, Side, pod_side

NOISE = (
    "kubelet[812]: I1120 prober.go:107] Probe succeeded for pod shop/web",
    "containerd[640]: level=info msg=image is up to date",
    "systemd[1]: Started session-4.scope - Session 4 of User admin.",
    "sshd[2201]: Accepted publickey for admin from 192.0.2.7 port 50122 ssh2",
    "CRON[3307]: (root) CMD (run-parts /etc/cron.hourly)",
)
# What the world tries on any address that it can reach.
WORLDLY_PORTS = (22, 23, 80, 443, 445, 3389, 5900, 6379, 8080, 8443)


@dataclass(frozen=True, slots=True)
class Label:
    """One planted behaviour: the rule that has to find it, its subject, its first and last packet, what it is."""

    rule: str
    subject: str
    first: str
    last: str
    what: str


@dataclass(slots=True)
class Sample:
    """The log of the labelled day in the making, and the labels of what was planted."""

    log: NodeLog
    labels: list[Label]

    def label(self, rule: str, subject: str, since: int, what: str) -> None:
        """Label the packets since the event with this number."""
        times = [time for time, *_ in self.log.events[since:]]
        self.labels.append(Label(rule, subject, min(times).isoformat(), max(times).isoformat(), what))


def at(hours: float, seconds: float = 0) -> datetime:
    """A time on the labelled day."""
    return DAY + timedelta(hours=hours, seconds=seconds)


def background(log: NodeLog, day: datetime) -> None:
    """A day as every other: what nodes write, the world's knocking, a clock that is not allowed out, pings, IGMP."""
    for node in ("worker-1", "worker-2", "worker-3"):
        for second in range(0, 86_400, 300):
            moment = day + timedelta(seconds=second + 280 * log.dice.random())
            log.say(moment, node, log.dice.choice(NOISE), kernel=False)
    for _ in range(60):
        moment = day + timedelta(seconds=86_000 * log.dice.random())
        web = log.dice.choice(("web-1", "web-2"))
        stranger = Side(f"203.0.113.{log.dice.randrange(100, 200)}")
        log.connect(moment, PODS[web].node, stranger, pod_side(web), log.dice.choice(WORLDLY_PORTS), retries=2)
    for hour in (1, 7, 13, 19):
        moment = day + timedelta(hours=hour, seconds=3000 * log.dice.random())
        log.datagram(moment, "worker-3", pod_side("ledger"), Side("203.0.113.5"), 123)
    for number in range(5):
        echo = f"84 PROTO=ICMP TYPE=8 CODE=0 ID=4711 SEQ={number + 1}"
        log.packet(day + timedelta(hours=9, seconds=number), "worker-1", Side("192.0.2.9"), pod_side("api-1"), echo)
    igmp = "calico-packet: IN=eth0 OUT= MAC=01:00:5e:00:00:01:02:00:5e:10:00:09:08:00 SRC=192.0.2.1 DST=192.0.2.255 "
    igmp += "LEN=28 TOS=0x00 PREC=0xC0 TTL=1 ID=0 PROTO=2 "
    log.say(day + timedelta(hours=12), "worker-1", igmp)
    repeated = f"kernel: message repeated 5 times: [ {igmp}]"
    log.say(day + timedelta(hours=12, seconds=60), "worker-1", repeated, kernel=False)


def wrong_policy(sample: Sample) -> None:
    """The web asks the database directly; only the api is allowed to."""
    since = len(sample.log.events)
    for second in range(0, 3 * 3600, 60):
        for number, web in enumerate(("web-1", "web-2")):
            moment = at(8.5, second + 20 * number + sample.log.dice.random())
            sample.log.connect(moment, "worker-1", pod_side(web), pod_side("db"), 5432, retries=3)
    sample.label("misconfigured_client", "shop/web", since, "web asks the database, which admits only the api")


def no_dns(sample: Sample) -> None:
    """The batch's egress policy forgets DNS; its pod is replaced at six, and gets another address."""
    since = len(sample.log.events)
    for second in range(30, 86_400 - 60, 240):
        pod = "batch-old" if second < 6 * 3600 else "batch"
        moment = at(0, second + 5 * sample.log.dice.random())
        dns = sample.log.dice.choice(("dns-1", "dns-2"))
        for later in (0, 5):
            again = moment + timedelta(seconds=later)
            sample.log.datagram(again, PODS[pod].node, pod_side(pod), pod_side(dns), 53)
    sample.label("misconfigured_client", "shop/batch", since, "batch has no egress rule for DNS")


def no_scrape(sample: Sample) -> None:
    """Prometheus scrapes two workloads whose namespace does not let it in, over a retry each."""
    since = len(sample.log.events)
    for second in range(0, 3 * 3600, 60):
        for number, target in enumerate(("ledger", "payments-api")):
            moment = at(13, second + 7 * number + sample.log.dice.random())
            sample.log.connect(moment, "worker-3", pod_side("prometheus"), pod_side(target), 9090, retries=2)
    sample.label("misconfigured_client", "monitoring/prometheus", since, "payments does not let the scraper in")


def dual_stack(sample: Sample) -> None:
    """The api reaches the database over IPv4 only: the policy admits an IPv4 block."""
    since = len(sample.log.events)
    for second in range(0, 2 * 3600, 90):
        moment = at(16, second + sample.log.dice.random())
        ends = pod_side("api-2", version=6), pod_side("db", version=6)
        sample.log.connect(moment, "worker-1", *ends, 5432, retries=2)
    sample.label("misconfigured_client", "shop/api", since, "the database admits the api over IPv4 only")


def scan(sample: Sample) -> None:
    """A stranger tries two hundred ports of a web pod within two minutes, each twice; the kernel leaves lines out."""
    since = len(sample.log.events)
    ports = sample.log.dice.sample(range(1, 10_000), 200)
    for number, port in enumerate(ports):
        moment = at(10.4, number * 0.5)
        rest = f"44 PROTO=TCP SPT={54_321 + number % 2} DPT={port} WINDOW=1024 RES=0x00 SYN URGP=0"
        for later in (0.0, 1.1):
            again = moment + timedelta(seconds=later)
            sample.log.packet(again, "worker-1", Side("203.0.113.66"), pod_side("web-1"), rest)
    sample.label("vertical_scan", "203.0.113.66", since, "200 ports of one web pod in two minutes")
    sample.log.say(at(10.4, 60), "worker-1", "net_ratelimit: 37 callbacks suppressed")


def slow_scan(sample: Sample) -> None:
    """A stranger tries a port every four minutes, hoping that nobody looks at more than five."""
    since = len(sample.log.events)
    for number, port in enumerate(sample.log.dice.sample(range(1, 10_000), 60)):
        moment = at(15, number * 240 + 60 * sample.log.dice.random())
        sample.log.connect(moment, "worker-2", Side("203.0.113.88"), pod_side("web-2"), port, retries=1)
    sample.label("vertical_scan", "203.0.113.88", since, "60 ports of one web pod in four hours")


def sweep(sample: Sample) -> None:
    """A build runner looks for SSH on every second address of two nodes' pods."""
    since = len(sample.log.events)
    for number, last in enumerate(range(65, 191, 2)):
        if last != 135:
            moment = at(14.2, number * 1.5)
            target = Side(f"198.51.100.{last}")
            sample.log.connect(moment, "worker-1", pod_side("runner-1"), target, 22, retries=2)
    sample.label("horizontal_sweep", "build/runner", since, "62 addresses on port 22 in a minute and a half")


def beacon(sample: Sample) -> None:
    """The cart calls home every five minutes, give or take three seconds."""
    since = len(sample.log.events)
    for second in range(3600, 23 * 3600, 300):
        moment = at(0, second + 6 * sample.log.dice.random() - 3)
        sample.log.connect(moment, "worker-2", pod_side("cart"), Side("203.0.113.77"), 443, retries=2)
    sample.label("beaconing", "shop/cart", since, "a call home every 300 s")


def spoof(sample: Sample) -> None:
    """A build runner sends with the address of a web pod; its interface tells on it."""
    since = len(sample.log.events)
    liar = Side(PODS["web-1"].address, PODS["runner-2"])
    for number in range(12):
        sample.log.connect(at(17.3, number * 9), "worker-3", liar, pod_side("ledger"), 9090, retries=1)
    sample.label("spoofed_source", "build/runner", since, "a runner's interface, a web pod's address")


def first_seen(sample: Sample) -> None:
    """The ledger, which never wanted anything but the time, tries a stranger."""
    since = len(sample.log.events)
    sample.log.connect(at(18.7), "worker-3", pod_side("ledger"), Side("203.0.113.44"), 4444)
    sample.label("first_seen", "payments/ledger", since, "a destination that the ledger never had")


def spike(sample: Sample) -> None:
    """A quarter of an hour in which a crowd of strangers tries the shop, each once or twice."""
    since = len(sample.log.events)
    for number in range(420):
        web = ("web-1", "web-2")[number % 2]
        stranger = Side(f"203.0.113.{100 + number % 140}")
        moment = at(19, number * 2.1)
        sample.log.connect(moment, PODS[web].node, stranger, pod_side(web), 8443, retries=1)
    sample.label("spike", "shop", since, "420 attempts in a quarter of an hour that usually has a handful")


def offender(sample: Sample) -> None:
    """A stranger comes back six times and tries SSH on a node, four times each."""
    since = len(sample.log.events)
    for hour in (0.4, 3.2, 7.75, 11.1, 15.5, 21.0):
        for number in range(4):
            moment = at(hour, number * 20 + 5 * sample.log.dice.random())
            sample.log.connect(moment, "worker-3", Side("203.0.113.13"), pod_side("ledger"), 22, retries=2)
    sample.label("repeated_offender", "203.0.113.13", since, "24 attempts in six visits")


def reused_address(sample: Sample) -> None:
    """The runner that took over the batch pod's address tries the shop's api now and then: not the batch's doing."""
    for number in range(6):
        moment = at(7 + number, 600)
        sample.log.connect(moment, "worker-1", pod_side("runner-1"), pod_side("api-1"), 8080, retries=2)
    assert PODS["runner-1"].address == REUSED == PODS["batch-old"].address


def rarities(sample: Sample) -> None:
    """One of each of the rarer kinds of line: an ICMP error with the packet it quotes, and a line that is forged."""
    quoted = f"[SRC={PODS['api-1'].address} DST=192.0.2.80 LEN=60 TOS=0x00 PREC=0x00 TTL=62 ID=4660 DF "
    quoted += "PROTO=TCP INCOMPLETE [8 bytes] ]"
    error = f"88 PROTO=ICMP TYPE=3 CODE=1 {quoted}"
    sample.log.packet(at(9.35), "worker-1", Side("192.0.2.1"), pod_side("api-1"), error)
    forged = "admin: calico-packet: IN=eth0 OUT= SRC=192.0.2.66 DST=192.0.2.67 LEN=40 "
    sample.log.say(at(20.5), "worker-1", forged, kernel=False)


PARTS: tuple[Callable[[Sample], None], ...] = (
    wrong_policy, no_dns, no_scrape, dual_stack, scan, slow_scan, sweep, beacon, spoof, first_seen, spike, offender,
    reused_address, rarities,
)  # fmt: skip


def write(folder: Path) -> None:
    """Write all samples into a folder."""
    clean = NodeLog(random.Random(20261115))
    for number in range(CLEAN_DAYS, 0, -1):
        background(clean, DAY - timedelta(days=number))
    # No name and no time in the header, so that the file is the same whenever it is made.
    (folder / "syslog.1.gz").write_bytes(gzip.compress("".join(clean.lines()).encode(), mtime=0))
    sample = Sample(NodeLog(random.Random(20261120)), [])
    background(sample.log, DAY)
    for part in PARTS:
        part(sample)
    (folder / "syslog").write_text("".join(sample.log.lines()))
    (folder / "inventory.json").write_text(json.dumps(inventory(), indent=1) + "\n")
    labels = sorted((asdict(label) for label in sample.labels), key=lambda label: str(label["first"]))
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
