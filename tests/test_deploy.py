"""The deployment of the service, as far as it can be checked without containers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.serve.running import serving

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


@pytest.mark.parametrize("name", ["nameplate", "postgres", "prometheus"])
def test_every_service_is_hardened_and_published_on_this_machine_alone(name: str) -> None:
    service = read("compose.yaml")["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert name == "nameplate" or int(service["user"].partition(":")[0]) > 0


def test_the_image_runs_as_a_number_that_is_nobody() -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert [tuple(map(int, each)) for each in user] == [(10001, 10001)]


def test_the_image_gets_extras_that_there_are() -> None:
    [extras] = re.findall(r'"\.\[([a-z,]+)\]"', DOCKERFILE)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()


def test_all_that_the_image_copies_is_there_and_let_through() -> None:
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    ]
    through = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert set(copied) == through
    assert all((ROOT / name).exists() for name in copied)


def test_the_health_check_distinguishes_ready_from_not_ready() -> None:
    [check] = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    program, *arguments = json.loads(check)
    assert program == "python"

    def healthy(address: str) -> bool:
        command = [argument.replace("127.0.0.1:8000", address) for argument in arguments]
        return subprocess.run([sys.executable, *command], capture_output=True, check=False).returncode == 0

    with serving() as running:
        assert healthy(running.url.removeprefix("http://"))
        assert running.stop() == 0
        assert not healthy(running.url.removeprefix("http://"))


def _asked() -> set[str]:
    """The metrics that alerts, dashboard and autoscaler ask for."""
    rules = [rule["expr"] for group in read("deploy/alerts.yml")["groups"] for rule in group["rules"]]
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text("utf-8"))["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    [scaler] = [part for part in KUBERNETES if part["kind"] == "HorizontalPodAutoscaler"]
    scaled = [metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]]
    assert rules
    assert shown
    assert scaled
    return {name for text in (*rules, *shown, *scaled) for name in re.findall(r"nameplate_\w+|process_\w+", text)}


KUBERNETES = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8")))


def test_the_deployment_on_kubernetes_is_hardened_and_its_parts_refer_to_each_other() -> None:
    parts = {part["kind"]: part["spec"] for part in KUBERNETES}
    template = parts["Deployment"]["template"]
    assert template["metadata"]["labels"] == parts["Service"]["selector"]
    assert parts["Deployment"]["selector"] == parts["PodDisruptionBudget"]["selector"]
    assert parts["HorizontalPodAutoscaler"]["scaleTargetRef"]["name"] == "nameplate"
    [container] = template["spec"]["containers"]
    secured = container["securityContext"]
    assert (secured["readOnlyRootFilesystem"], secured["capabilities"]["drop"]) == (True, ["ALL"])
    delay = float(container["args"][container["args"].index("--stop-delay") + 1])
    assert template["spec"]["terminationGracePeriodSeconds"] > delay + 30
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    with serving("--jobs", tmp_path) as running:
        there = running.get("/metrics").text
    asked = _asked()
    for name in asked:
        assert re.search(rf"^# TYPE {name.removesuffix('_bucket')} ", there, re.MULTILINE), name


def test_prometheus_reads_the_rules_that_compose_gives_it() -> None:
    mounts = read("compose.yaml")["services"]["prometheus"]["volumes"]
    given = {Path(mount.split(":")[1]).name for mount in mounts if mount.startswith("./")}
    assert {"prometheus.yml", *read("deploy/prometheus.yml")["rule_files"]} == given
    assert all((ROOT / mount.split(":")[0]).is_file() for mount in mounts if mount.startswith("./"))
