"""Makes `samples/syslog`: an hour in the syslog of one worker node, the same at every run (fixed seed).

Rule: only addresses that the RFCs set aside for documentation: 192.0.2.0/24 are nodes and the world, 198.51.100.0/24
and 2001:db8::/32 are pods, 203.0.113.0/24 are strangers. What is in it: a client behind a wrong policy, a pod without
DNS, a scan, pings, IPv6, an ICMP error with the packet it quotes, a repeated message, lost messages, and a forged line.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
BOOTED = START - timedelta(seconds=421_337.204_118)
NODE = "worker-1"
PODS = {"web": "198.51.100.11", "api": "198.51.100.12", "db": "198.51.100.13", "batch": "198.51.100.27"}
PODS_V6 = {"api": "2001:0db8:0000:0000:0000:0000:0000:0012", "db": "2001:0db8:0000:0000:0000:0000:0000:0013"}
NOISE = (
    "kubelet[812]: I1120 prober.go:107] Probe succeeded for pod shop/web",
    "containerd[640]: time=2026-11-20T09:00:00Z level=info msg=image is up to date",
    "systemd[1]: Started session-4.scope - Session 4 of User admin.",
    "sshd[2201]: Accepted publickey for admin from 192.0.2.7 port 50122 ssh2",
    "CRON[3307]: (root) CMD (run-parts /etc/cron.hourly)",
)


def interface(pod: str) -> str:
    """The host's end of a pod's veth, named as Calico names it."""
    return "cali" + hashlib.sha1(f"shop.{pod}".encode()).hexdigest()[:11]


class Log:
    """Collects events and writes them in the order of time, as rsyslog's file format does."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.events: list[tuple[float, str, bool]] = []

    def at(self, second: float, text: str, *, kernel: bool = True) -> None:
        """One message at so many seconds after the start."""
        self.events.append((second, text, kernel))

    def packet(self, second: float, ways: str, addresses: str, rest: str) -> None:
        """One denied IPv4 packet: `ways` is IN= and OUT=, `addresses` is SRC= and DST=."""
        mac = "MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:00:01:08:00 " if not ways.startswith("IN= ") else ""
        ip_id = self.random.randrange(1, 65536)
        length, transport = rest.split(" ", 1)
        head = f"calico-packet: {ways} {mac}{addresses} LEN={length} TOS=0x00 PREC=0x00 TTL=63 ID={ip_id} DF "
        self.at(second, head + transport + " ")

    def lines(self) -> Iterator[str]:
        """The lines of the file."""
        for second, text, kernel in sorted(self.events):
            now = START + timedelta(seconds=second)
            stamp = f"[{(now - BOOTED).total_seconds():12.6f}] "
            yield f"{now.isoformat(timespec='microseconds')} {NODE} {'kernel: ' + stamp if kernel else ''}{text}\n"


def tcp(source: int, destination: int) -> str:
    """The transport part of a TCP SYN."""
    return f"60 PROTO=TCP SPT={source} DPT={destination} WINDOW=64860 RES=0x00 SYN URGP=0"


def background(log: Log) -> None:
    """What else a node writes."""
    for second in range(0, 3600, 4):
        log.at(second + log.random.random(), log.random.choice(NOISE), kernel=False)


def wrong_policy(log: Log) -> None:
    """The web pod asks the database every ten seconds, with retries, and no policy allows it."""
    ways = f"IN={interface('web')} OUT={interface('db')}"
    addresses = f"SRC={PODS['web']} DST={PODS['db']}"
    for second in range(5, 3600, 10):
        port = log.random.randrange(32768, 60999)
        for retry in (0.0, 1.024, 3.072):
            log.packet(second + retry, ways, addresses, tcp(port, 5432))


def no_dns(log: Log) -> None:
    """The batch pod's egress policy forgets DNS."""
    ways = f"IN={interface('batch')} OUT=eth0"
    for second in range(40, 3600, 60):
        port = log.random.randrange(32768, 60999)
        for retry in (0.0, 5.0):
            rest = f"71 PROTO=UDP SPT={port} DPT=53 LEN=51"
            log.packet(second + retry, ways, f"SRC={PODS['batch']} DST=198.51.100.2", rest)


def scan(log: Log) -> None:
    """A stranger tries two hundred ports of the web pod within a minute."""
    ports = log.random.sample(range(1, 10_000), 200)
    for number, port in enumerate(ports):
        addresses = f"SRC=203.0.113.66 DST={PODS['web']}"
        log.packet(1500 + number * 0.3, f"IN=eth0 OUT={interface('web')}", addresses, tcp(54321, port))


def others(log: Log) -> None:
    """One of each of the rarer kinds."""
    api = interface("api")
    for number in range(20):
        addresses = f"SRC=192.0.2.9 DST={PODS['api']}"
        rest = f"84 PROTO=ICMP TYPE=8 CODE=0 ID=4711 SEQ={number + 1}"
        log.packet(600 + number, f"IN=eth0 OUT={api}", addresses, rest)
        log.at(
            900 + number * 2,
            f"calico-packet: IN={api} OUT={interface('db')} MAC=ee:ee:ee:ee:ee:ee:02:00:5e:10:00:02:86:dd "
            f"SRC={PODS_V6['api']} DST={PODS_V6['db']} LEN=80 TC=0 HOPLIMIT=63 FLOWLBL={number * 977} "
            f"PROTO=TCP SPT={40_000 + number} DPT=5432 WINDOW=64800 RES=0x00 SYN URGP=0 ",
        )
    quoted = f"[SRC={PODS['api']} DST=192.0.2.80 LEN=60 TOS=0x00 PREC=0x00 TTL=62 ID=4660 DF "
    quoted += "PROTO=TCP INCOMPLETE [8 bytes] ]"
    log.packet(1201, f"IN=eth0 OUT={api}", f"SRC=192.0.2.1 DST={PODS['api']}", f"88 PROTO=ICMP TYPE=3 CODE=1 {quoted}")
    repeated = (
        "calico-packet: IN=eth0 OUT= MAC=01:00:5e:00:00:01:02:00:5e:10:00:09:08:00 SRC=192.0.2.1 DST=192.0.2.255 "
    )
    repeated += "LEN=28 TOS=0x00 PREC=0xC0 TTL=1 ID=0 PROTO=2 "
    log.at(1800.5, repeated)
    log.at(1860.5, f"kernel: message repeated 5 times: [ {repeated}]", kernel=False)
    log.at(2400.25, "net_ratelimit: 37 callbacks suppressed")
    log.at(3000.75, "admin: calico-packet: IN=eth0 OUT= SRC=192.0.2.66 DST=192.0.2.67 LEN=40 ", kernel=False)


def main() -> None:
    """Write the file beside this script."""
    log = Log(seed=20261120)
    for part in (background, wrong_policy, no_dns, scan, others):
        part(log)
    (Path(__file__).parent / "syslog").write_text("".join(log.lines()))


if __name__ == "__main__":
    main()
