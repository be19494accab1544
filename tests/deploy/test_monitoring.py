"""The dashboard and the alerts: Prometheus' own tools accept them, and a real collector has every metric they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collector.live import REPOSITORY
from tests.collector.test_metrics import running

RULES = REPOSITORY / "deploy" / "prometheus" / "denylog.rules.yml"
TESTS = RULES.with_name("denylog.rules.test.yml")
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "denylog.json"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")


def promtool(*words: str, text: str | None = None) -> str:
    """What promtool says, which must be content."""
    found = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@needs_promtool
def test_rules_are_valid_and_do_what_they_say() -> None:
    """Each alert fires where it should, and none on a healthy collector."""
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))


def test_each_alert_is_tested_both_ways() -> None:
    """Every alert of the rules occurs in both cases of their tests, and tells what to do."""
    rules, tests = RULES.read_text(), TESTS.read_text()
    alerts = re.findall(r"alert: (\w+)", rules)
    assert len(alerts) > 10
    for alert in alerts:
        assert f"alertname: {alert}}}" in tests
        assert f'alertname="{alert}"' in tests
    assert rules.count("summary:") == rules.count("description:") == len(alerts)


def expressions(node: Any) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(node, list):
        for item in node:
            yield from expressions(item)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The metrics of a real scrape, with everything switched on."""
    with running(tmp_path_factory.mktemp("names"), "--rule-counters", "--forward", "udp://127.0.0.1:9") as found:
        text = found.get("/metrics")[1]
    if shutil.which("promtool"):
        assert promtool("check", "metrics", text=text) == ""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE))
    histograms = {
        f"{name}_{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    return set(kinds) | histograms


@pytest.mark.parametrize("file", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_exists(file: Path, names: set[str]) -> None:
    """What rules and dashboard ask for is in a real scrape, by exactly that name."""
    text = file.read_text() if file is RULES else "\n".join(expressions(json.loads(file.read_text())))
    asked = set(re.findall(r"(?<![\w:])(?:denylog|process)_\w+", text))
    assert len(asked) > 15
    assert asked <= names, asked - names


def test_every_metric_is_shown(names: set[str]) -> None:
    """No metric of ours is collected for nothing: each is on the dashboard, or in an alert."""
    text = RULES.read_text() + "\n".join(expressions(json.loads(DASHBOARD.read_text())))
    ours = {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in names if name.startswith("denylog_")}
    assert {name for name in ours if name not in text} == set()


@needs_promtool
def test_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    """Prometheus understands each query, its variables filled in."""
    found = [query for query in expressions(json.loads(DASHBOARD.read_text())) if not query.startswith("label_values")]
    filled = [
        query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$namespace", ".*")
        for query in found
    ]
    assert len(filled) > 30
    rules = [{"record": f"query:number{number}", "expr": query} for number, query in enumerate(filled)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))


def test_dashboard_is_well_formed() -> None:
    """Panels have numbers of their own, do not overlap, ask the chosen data source, and say what they show."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells
        assert place["x"] + place["w"] <= 24
        cells |= own
        if panel["type"] != "row":
            assert panel["title"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
