"""The Compose file and the Kubernetes manifests: well-formed, hardened, and true to what the service reads."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gembackend import __version__, config
from tests.processes import ROOT
from tests.tools import on_path

KUBERNETES = ROOT / "ops/kubernetes"
SECRETS = {
    "POSTGRES_PASSWORD": "p@ss/word",
    "JWT_SECRET_KEY": "a key for tests: 0fQm3WcXr8LzT5uJp2VbNe7KdS9YhG41",
    "GEMINI_API_KEY": "a-key",
    "OTP_DELIVERY": "webhook",
    "OTP_WEBHOOK_URL": "https://sms.example.internal/codes",
    "OTP_WEBHOOK_SECRET": "another key for tests: 8Wq2ZpXc4Vb6Nm1L",
    "STRIPE_SECRET_KEY": "sk_test_1",
    "PRO_PRICE_ID": "price_1",
    "STRIPE_WEBHOOK_SIGNING_SECRET": "whsec_1",
}
KNOWN = set(re.findall(r"(?m)^#?([A-Z_]+)=", (ROOT / ".env.example").read_text()))
KNOWN |= {"DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASS"}


def documents(path: Path) -> list[Any]:
    """Every document of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """Every Kubernetes object, by kind and name."""
    found = [document for path in KUBERNETES.glob("*.yaml") for document in documents(path)]
    return {(each["kind"], each.get("metadata", {}).get("name", "")): each for each in found}


def compose() -> dict[str, Any]:
    """The services of the Compose file."""
    (document,) = documents(ROOT / "ops/compose.yaml")
    return dict(document["services"])


def interpolated(text: str) -> str:
    """A value of the Compose file with its variables filled in."""
    return re.sub(r"\${(\w+)(?::[-?]([^}]*))?}", lambda found: SECRETS.get(found[1], found[2] or ""), text)


@pytest.mark.parametrize(
    "path",
    [path for kind in ("yaml", "yml") for path in sorted((ROOT / "ops").rglob(f"*.{kind}"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_file_is_yaml(path: Path) -> None:
    assert all(document for document in documents(path))


def test_the_service_starts_with_the_environment_of_the_compose_file() -> None:
    environment = {name: interpolated(value) for name, value in compose()["gembackend"]["environment"].items()}
    assert environment.keys() <= KNOWN
    chosen = config.load(environment, "serve")
    assert chosen.environment == "production"
    assert chosen.database_url == "postgresql://gembackend:p%40ss%2Fword@postgres:5432/gembackend"


def test_compose_runs_two_hardened_processes_after_the_schema() -> None:
    services = compose()
    service = services["gembackend"]
    assert service["deploy"]["replicas"] == 2
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert "init" not in service, "the service is process 1 itself, see tests/acceptance/test_container.py"
    assert not service["user"].startswith(("0", "root"))
    assert service["depends_on"]["schema"] == {"condition": "service_completed_successfully"}
    assert services["schema"]["command"][-1] == "/sql/migrate.sql"
    assert "--appendonly yes" in " ".join(services["redis"]["command"])
    ports = [port for each in services.values() for port in each.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_of_others_is_pinned_by_a_digest_and_the_same_everywhere() -> None:
    pods = [
        each["spec"]["template"]["spec"] for (kind, _), each in manifests().items() if kind in ("Deployment", "Job")
    ]
    containers = [each for pod in pods for each in (*pod["containers"], *pod.get("initContainers", ()))]
    images = {each["image"] for each in (*containers, *compose().values())}
    others = sorted(image for image in images if not image.startswith("gembackend"))
    assert [re.sub(r"@sha256:[0-9a-f]{64}$", "", image).partition(":")[0] for image in others] == [
        "grafana/grafana",
        "postgres",
        "prom/prometheus",
        "redis",
    ]
    assert all(re.search(r":[^@]+@sha256:[0-9a-f]{64}$", image) for image in others)


def test_what_compose_mounts_is_there() -> None:
    for service in compose().values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / "ops" / source).exists(), volume


def test_prometheus_scrapes_where_the_service_listens() -> None:
    (job,) = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert str(found["port"]) == compose()["gembackend"]["environment"]["METRICS_PORT"]
    assert found["names"] == ["gembackend"]


def test_the_service_starts_with_the_environment_of_the_manifests() -> None:
    objects = manifests()
    plain, secret = objects["ConfigMap", "gembackend"]["data"], objects["Secret", "gembackend"]["stringData"]
    assert plain.keys() | secret.keys() <= KNOWN
    config.load(plain | {name: value or SECRETS[name] for name, value in secret.items()}, "serve")


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "gembackend"), ("Job", "")])
def test_every_pod_is_locked_down_and_knows_its_size(kind: str, name: str) -> None:
    pod = manifests()[kind, name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_a_pod_is_asked_how_it_is_and_has_time_to_drain() -> None:
    objects = manifests()
    deployment = objects["Deployment", "gembackend"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    grace = objects["ConfigMap", "gembackend"]["data"]["SHUTDOWN_GRACE_SECONDS"]
    assert pod["terminationGracePeriodSeconds"] > int(pause) + int(grace)
    assert objects["PodDisruptionBudget", "gembackend"]["spec"]["minAvailable"] < deployment["replicas"]


def test_selectors_find_the_pods() -> None:
    objects = manifests()
    labels = objects["Deployment", "gembackend"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Deployment", "gembackend"]["spec"]["selector"]["matchLabels"],
        objects["PodDisruptionBudget", "gembackend"]["spec"]["selector"]["matchLabels"],
        objects["Service", "gembackend"]["spec"]["selector"],
        objects["Service", "gembackend-metrics"]["spec"]["selector"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_the_schema_job_applies_the_sql_of_the_same_release() -> None:
    objects = manifests()
    job = objects["Job", ""]["spec"]["template"]["spec"]
    (copy,), (psql,) = job["initContainers"], job["containers"]
    assert copy["image"] == f"gembackend:{__version__}"
    assert "/app/sql" in " ".join(copy["command"])
    assert "psql" in psql["command"][-1] and psql["command"][-1].endswith("/sql/migrate.sql")
    assert objects["Kustomization", ""]["images"] == [{"name": "gembackend", "newTag": __version__}]


def test_kustomize_builds_the_manifests() -> None:
    command = [on_path("kubectl", None), "kustomize", str(KUBERNETES)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = sorted(document["kind"] for document in yaml.safe_load_all(built))
    assert kinds == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "Service"]
