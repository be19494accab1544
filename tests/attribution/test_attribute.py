"""`policies snapshot` and `policies attribute` as time goes by: what comes late, what changes, what is done twice."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics import Writer
from analytics.additions import Additions, VerdictRow
from analytics.inbox import deposit
from collector.attribution import attribute as attribution
from tests.attribution.cluster import START, Store, calico, interface, line, pod, policy

API, DB = pod("shop/api", "10.1.0.1"), pod("shop/db", "10.1.0.2")
LOG = {"action": "Log"}
DENY_ALL: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
ONLY_WEB: dict[str, Any] = {
    "podSelector": {"matchLabels": {"app": "db"}},
    "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
}
TO_DB = line("10.1.0.1", "10.1.0.2", leaves="shop/db")


def test_a_second_run_writes_nothing(store: Store) -> None:
    """A verdict is written once, however often one asks; a packet that comes later finds it there."""
    store.ingest(TO_DB)
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL))
    assert [store.attribute()["verdicts"], store.attribute()["verdicts"]] == [1, 0]
    store.ingest(line("10.1.0.1", "10.1.0.2", leaves="shop/db", after_s=60))
    told = store.attribute("--again")
    assert (told["verdicts"], told["packets"]["engine"]) == (0, 2)


def test_packets_before_and_after_a_change_have_different_culprits(store: Store) -> None:
    """A policy that replaced another is blamed only for what came after it."""
    store.ingest(TO_DB, line("10.1.0.1", "10.1.0.2", leaves="shop/db", after_s=3600))
    store.snapshot(API, DB, policy("shop/old", DENY_ALL))
    changed = policy("shop/new", ONLY_WEB, made="2026-11-20T12:30:00Z")
    store.snapshot(API, DB, changed, words=("--at", "2026-11-20T12:31:00Z"))
    assert store.attribute()["packets"]["engine"] == 2
    assert [row["denied_by"] for row in store.denied()] == [
        ["KubernetesNetworkPolicy shop/old"],
        ["KubernetesNetworkPolicy shop/new"],
    ]


def test_a_snapshot_that_comes_late_is_applied_to_old_packets(store: Store) -> None:
    """Without policies of that time nothing is guessed; once they are known, the old packets are judged."""
    store.ingest(TO_DB)
    told = store.attribute()
    assert told["not_attributed"][0]["cause"] == "no policies known of that time"
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL), words=("--valid-from", "2026-11-10"))
    assert store.attribute()["packets"] == {"prefix": 0, "engine": 1, "none": 0}


def test_attribute_says_how_to_bring_what_is_missing(store: Store) -> None:
    """The command that keeps the policies of the first packet without any, with its time; it does what it says."""
    store.ingest(TO_DB)
    result = store.run("policies", "attribute")
    assert result.exit_code == 1
    assert "`denylog policies snapshot FILES --at '2026-11-20 12:00:00+00:00'` keeps the policies" in result.stderr
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL), words=("--at", "2026-11-20 12:00:00+00:00"))
    again = store.run("policies", "attribute")
    assert (again.exit_code, again.stderr) == (0, "")


def test_what_is_learned_later_corrects_what_was_judged_before(store: Store) -> None:
    """A snapshot of an earlier time changes the verdicts from then on, without being asked to judge again."""
    store.ingest(TO_DB)
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL))
    store.attribute()
    store.snapshot(API, DB, policy("shop/db", ONLY_WEB), words=("--at", "2026-11-20T11:00:00Z"))
    store.attribute()
    assert [row["denied_by"] for row in store.denied()] == [["KubernetesNetworkPolicy shop/db"]]


def test_a_verdict_ends_where_it_no_longer_holds(store: Store) -> None:
    """Where the policies of that time turn out to allow the packet, the verdict goes, and the reason is told."""
    store.ingest(TO_DB)
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL), policy("other/deny", DENY_ALL))
    store.attribute()
    store.snapshot(API, DB, policy("other/deny", DENY_ALL), policy("more/deny", DENY_ALL), words=("--at", "2026-11-19"))
    told = store.attribute()
    assert told["packets"] == {"prefix": 0, "engine": 0, "none": 1}
    assert told["not_attributed"][0]["cause"] == "the policies known of that time allow it"
    assert store.denied("decided_by") == [{"decided_by": None}]
    assert store.attribute()["verdicts"] == 0


def test_what_the_prefix_says_is_not_judged_again(store: Store) -> None:
    """Calico named the policy on the line: it is counted, and nothing is written."""
    store.ingest(
        line("10.1.0.1", "10.1.0.2", leaves="shop/db", prefix="calico-packet np shop/db"),
        log_prefix="calico-packet %k %p",
    )
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL))
    told = store.attribute()
    assert (told["packets"], told["verdicts"]) == ({"prefix": 1, "engine": 0, "none": 0}, 0)


def test_a_prefix_that_names_our_own_log_policy_gives_way_to_the_policies_that_deny(store: Store) -> None:
    """A generated Log policy logs what others deny: they are named, and it is said that judging found them."""
    prefixed = line("10.1.0.1", "10.1.0.2", leaves="shop/db", prefix="calico-packet np shop/log-ingress")
    store.ingest(prefixed, log_prefix="calico-packet %k %p")
    ours = calico("NetworkPolicy", "shop/log-ingress", {"order": 3000, "types": ["Ingress"], "ingress": [LOG]})
    ours["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "denylog"}
    store.snapshot(ours, DB)
    assert store.attribute()["packets"] == {"prefix": 0, "engine": 1, "none": 0}
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL), ours)
    told = store.attribute()
    assert (told["packets"], told["verdicts"]) == ({"prefix": 0, "engine": 1, "none": 0}, 1)
    assert store.denied("denied_by, decided_by") == [
        {"denied_by": ["KubernetesNetworkPolicy shop/deny"], "decided_by": "engine"}
    ]
    assert store.attribute()["verdicts"] == 0


def test_a_prefix_stands_where_nothing_can_be_judged(store: Store) -> None:
    """Without the pod there is no verdict: the Log policy on the line is all that is known, and no packet is left."""
    prefixed = line("10.1.0.1", "10.1.0.2", leaves="shop/db", prefix="calico-packet np shop/log-ingress")
    store.ingest(prefixed, log_prefix="calico-packet %k %p")
    ours = calico("NetworkPolicy", "shop/log-ingress", {"order": 3000, "types": ["Ingress"], "ingress": [LOG]})
    ours["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "denylog"}
    store.snapshot(ours, policy("shop/deny", DENY_ALL))
    assert store.attribute()["packets"] == {"prefix": 1, "engine": 0, "none": 0}
    assert store.denied("denied_by, decided_by") == [
        {"denied_by": ["NetworkPolicy shop/log-ingress"], "decided_by": "prefix"}
    ]


def test_verdicts_wait_where_another_process_holds_the_store(store: Store) -> None:
    """A running collector is not disturbed: it takes the verdicts from the inbox."""
    store.ingest(TO_DB)
    store.snapshot(API, DB, policy("shop/deny", DENY_ALL))
    with Writer(store.path) as writer:
        assert store.attribute()["queued"]
        assert writer.take_in() == 1
    assert store.denied() == [{"denied_by": ["KubernetesNetworkPolicy shop/deny"]}]


def test_a_snapshot_without_policies_or_with_one_that_cannot_be_read_is_refused(store: Store) -> None:
    """A policy that is missing would blame others: nothing is kept, and the sentence says what to do."""
    empty = store.run("policies", "snapshot", "-", text="{}\n---\n")
    assert empty.exit_code == 2
    bad = store.run(
        "policies", "snapshot", "-", text="apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nspec: 7\n"
    )
    assert (bad.exit_code, bad.stdout) == (2, "")
    for words in (("--at", "2999-01-01"), ("--at", "soon"), ("--at", "2h", "--valid-from", "1h")):
        assert store.run("policies", "snapshot", "-", *words, text="").exit_code == 2


@pytest.fixture
def strict(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of which nothing counts as new but what is: tests are quicker than the overlap of two runs."""
    monkeypatch.setattr(attribution, "_OVERLAP_MINUTES", 0)
    return store


def test_an_old_verdict_is_not_about_packets_that_come_after_a_change(strict: Store) -> None:
    """The policy was replaced before the packet, and another flow was judged in between."""
    strict.ingest(TO_DB)
    strict.snapshot(API, DB, policy("shop/old", DENY_ALL))
    strict.attribute()
    changed = policy("shop/new", DENY_ALL, made="2026-11-20T12:30:00Z")
    strict.snapshot(API, DB, changed, words=("--at", "2026-11-20T12:31:00Z"))
    strict.ingest(line("10.1.0.1", "10.1.0.2", "UDP SPT=40000 DPT=53 LEN=40", leaves="shop/db", after_s=3600))
    assert strict.attribute()["verdicts"] == 1
    strict.ingest(line("10.1.0.1", "10.1.0.2", leaves="shop/db", after_s=3700))
    strict.attribute()
    old, new = (["KubernetesNetworkPolicy shop/old"], ["KubernetesNetworkPolicy shop/new"])
    assert [row["denied_by"] for row in strict.denied()] == [old, new, new]
    assert strict.attribute()["verdicts"] == 0


@pytest.mark.parametrize("minutes", [0, 20])
def test_a_verdict_whose_boundary_vanished_is_corrected(strict: Store, minutes: int) -> None:
    """An older verdict begins where no object changes, as far as is known now; it does not hide the new one."""
    strict.ingest(line("10.1.0.1", "10.1.0.2", leaves="shop/db", after_s=3600))
    strict.snapshot(API, DB, policy("shop/deny", DENY_ALL))
    begin = START + timedelta(minutes=30)
    ends = VerdictRow(
        direction=None, in_interface="eth0", out_interface=interface("shop/db"), source_ip="10.1.0.1",
        destination_ip="10.1.0.2", protocol="tcp", destination_port=5432, denied_by=("NetworkPolicy shop/gone",),
        why="as it was known then", valid_from=begin, valid_until=begin + timedelta(minutes=minutes),
    )  # fmt: skip
    deposit(strict.path, Additions(verdicts=(ends,)))
    assert strict.attribute()["verdicts"] == 1
    assert [row["denied_by"] for row in strict.denied()] == [["KubernetesNetworkPolicy shop/deny"]]
    assert strict.attribute()["verdicts"] == 0


@pytest.mark.parametrize("seed", range(2))
def test_it_does_not_matter_when_one_asks(strict: Store, tmp_path: Path, seed: int) -> None:
    """Snapshots of any time and packets, in any order, with judging in between: as if judged once, at the end."""
    dice = random.Random(seed)
    (tmp_path / "whole").mkdir()
    whole = Store(tmp_path / "whole")
    for number in range(9):
        if dice.random() < 0.5:
            chosen = dice.sample(("a", "b", "c"), dice.randint(1, 3))
            objects = [policy(f"shop/{name}", dice.choice((DENY_ALL, ONLY_WEB))) for name in chosen]
            at = f"2026-11-20T{dice.randint(10, 15)}:00:00Z"
            words = ("--at", at, *(("--valid-from", at) if dice.random() < 0.7 else ()))
            for each in (strict, whole):
                each.snapshot(API, DB, *objects, words=words)
        else:
            lines = [
                line("10.1.0.1", "10.1.0.2", kind, leaves="shop/db", after_s=dice.randint(-7000, 10_000) + number)
                for kind in dice.sample((TCP, UDP), dice.randint(1, 2))
            ]
            for each in (strict, whole):
                each.ingest(*lines)
        strict.attribute()
    whole.attribute()
    columns = "time, protocol, denied_by, decided_by, why"
    assert strict.denied(columns) == whole.denied(columns)
    assert strict.attribute()["verdicts"] == 0


TCP, UDP = "TCP SPT=40000 DPT=5432 WINDOW=64240 RES=0x00 SYN URGP=0", "UDP SPT=40000 DPT=53 LEN=40"
