"""docker/: manifests hold against the API's schemas, and what belongs together agrees."""

import copy
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
MANIFESTS = list(yaml.safe_load_all((DOCKER / "kubernetes/gdn-server.yaml").read_text()))
DEPLOYMENT, SERVICE, BUDGET, POLICY = MANIFESTS
MONITOR = yaml.safe_load((DOCKER / "kubernetes/service-monitor.yaml").read_text())
KUSTOMIZATION = yaml.safe_load((DOCKER / "kustomization.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
TARGETS = set(re.findall(r"^FROM \S+ AS (\S+)$", (DOCKER / "Dockerfile").read_text(), re.M))
FLAGS = dict((argument[2:] + "=true").split("=")[:2] for argument in CONTAINER["args"])
DRAIN_TIMEOUT = 30  # seconds, the server's default


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: m["kind"])
def test_schemas(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_are_strict():
    wrong = copy.deepcopy(DEPLOYMENT)
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["grcp"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


def test_selectors_find_the_pods():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert SERVICE["spec"]["selector"] == labels
    assert BUDGET["spec"]["selector"]["matchLabels"] == labels
    assert POLICY["spec"]["podSelector"]["matchLabels"] == labels
    assert BUDGET["spec"]["maxUnavailable"] < DEPLOYMENT["spec"]["replicas"]


def test_it_runs_on_a_gpu_and_as_nobody():
    assert CONTAINER["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert POD["securityContext"]["runAsNonRoot"]
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert not CONTAINER["securityContext"]["allowPrivilegeEscalation"]


def test_probes_ask_where_it_listens():
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert int(FLAGS["metrics_listen"].rsplit(":")[-1]) == ports["metrics"]
    (port,) = {int(FLAGS["listen"].rsplit(":")[-1]), ports["grpc"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["grpc"] == {"port": port}


def test_prometheus_finds_the_metrics():
    assert MONITOR["spec"]["selector"]["matchLabels"] == SERVICE["metadata"]["labels"]
    (endpoint,) = MONITOR["spec"]["endpoints"]
    (port,) = (port for port in SERVICE["spec"]["ports"] if port["name"] == endpoint["port"])
    assert port["targetPort"] in [port["name"] for port in CONTAINER["ports"]]
    open_ports = [port["port"] for rule in POLICY["spec"]["ingress"] for port in rule["ports"]]
    assert sorted(open_ports) == sorted(port["name"] for port in CONTAINER["ports"])


def test_the_base_has_every_manifest():
    manifests = {f"kubernetes/{path.name}" for path in (DOCKER / "kubernetes").glob("*.yaml")}
    assert set(KUSTOMIZATION["resources"]) == manifests
    for generator in KUSTOMIZATION["configMapGenerator"]:
        assert all((DOCKER / name).is_file() for name in generator["files"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_it():
    built = subprocess.run(["kubectl", "kustomize", DOCKER], capture_output=True, check=True)
    kinds = sorted(manifest["kind"] for manifest in yaml.safe_load_all(built.stdout))
    assert kinds == sorted([*(m["kind"] for m in MANIFESTS), "ServiceMonitor", "ConfigMap"])


def test_there_is_time_to_drain():
    pause = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = int(FLAGS["drain_timeout"].removesuffix("s"))
    assert pause + drain < POD["terminationGracePeriodSeconds"]
    assert DRAIN_TIMEOUT < int(COMPOSE["server"]["stop_grace_period"].removesuffix("s"))


def test_compose_builds_what_the_dockerfile_has():
    assert {service["build"]["target"] for service in COMPOSE.values()} <= TARGETS
    assert COMPOSE["orchestrator"]["depends_on"]["server"]["condition"] == "service_healthy"
    assert {"cpu", "cuda", "orchestrator"} <= TARGETS
