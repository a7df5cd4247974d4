"""What is in deploy/ fits the service that is here: settings, metric names, ports, and Kubernetes' own schemas."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import ConfigError
from service.config import Config
from service.metrics import PHASES, Metrics
from service.settings import load_settings

yaml = pytest.importorskip("yaml", reason="the `dev` extra is not installed")

DEPLOY = Path(__file__).parents[1] / "deploy"
SETTINGS = DEPLOY / "mgrl.toml"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "mgrl.yaml").read_text()))
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS}
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def exported() -> set[str]:
    """Every sample name on the metrics page of a service that has been called."""
    metrics = Metrics()
    for collector in vars(metrics).values():
        if hasattr(collector, "_labelnames") and collector._labelnames:
            collector.labels(*("x" for _ in collector._labelnames))
    return {sample.name for family in metrics.registry.collect() for sample in family.samples}


def expressions() -> list[str]:
    """Of the dashboard and of the alerts."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return shown + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_every_metric_that_is_looked_at_is_one_that_the_service_exports() -> None:
    names = exported()
    looked_at = {name for text in expressions() for name in re.findall(r"\b(?:mgrl|process)_[a-z_]+", text)}
    assert len(looked_at) > 10
    assert looked_at <= names
    assert not {"mgrl_anything"} & names


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert() -> None:
    text = "\n".join(expressions())
    families = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in exported()}
    assert [name for name in sorted(families) if name.startswith("mgrl_") and name not in text] == []


def test_labels_that_are_looked_at_are_those_of_the_metrics() -> None:
    labels = {label for collector in vars(Metrics()).values() for label in getattr(collector, "_labelnames", ())}
    for text in expressions():
        for used in re.findall(r"[{,]\s*(\w+)\s*(?:=~|!=|=)", text):
            assert used in labels | {"job"}, text
        for phase in re.findall(r'phase!?="(\w+)"', text):
            assert phase in PHASES


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, place["y"]) for x in range(place["x"], place["x"] + place["w"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    sources = yaml.safe_load((DEPLOY / "grafana" / "datasource.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"] for source in sources}


def test_the_settings_are_ones_that_the_service_takes() -> None:
    config = load_settings(SETTINGS, {}, {}).config
    assert isinstance(config, Config)
    assert (config.server.address, config.server.metrics_address) == ("0.0.0.0:50051", "0.0.0.0:9090")
    assert config.asks_who_calls
    assert config.tls.is_on
    assert list(config.galleries) == ["default"]
    with pytest.raises(ConfigError, match="whoever reaches"):
        load_settings(None, {}, {"server.address": ("0.0.0.0:1", "test"), "galleries.x.path": ("x", "test")})


def test_all_deployments_have_the_same_settings() -> None:
    in_kubernetes = tomllib.loads(BY_KIND["ConfigMap"]["data"]["mgrl.toml"])
    assert in_kubernetes == tomllib.loads(SETTINGS.read_text())


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_kubernetes_takes_the_manifests(manifest: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="the `dev` extra is not installed")
    kubernetes_validate.validate(manifest, "1.31", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest | {"specs": {}}, "1.31", strict=True)


def test_kubernetes_parts_fit_each_other_and_the_settings() -> None:
    pod = BY_KIND["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    config = load_settings(SETTINGS, {}, {}).config
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 50051, "metrics": 9090}
    assert f":{ports['grpc']}" in config.server.address
    assert f":{ports['metrics']}" in config.server.metrics_address
    assert {port["targetPort"] for port in BY_KIND["Service"]["spec"]["ports"]} == set(ports)
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = BY_KIND[kind]["spec"]
        wanted = spec.get("podSelector", spec.get("selector", {}))
        labels = wanted.get("matchLabels", wanted)
        assert labels.items() <= pod["metadata"]["labels"].items()
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = [config.tls.certificate, config.tls.key, config.auth.keys, config.galleries["default"].path]
    for file in files:
        assert any(str(file).startswith(path) for path in paths), file
    assert pod["spec"]["terminationGracePeriodSeconds"] > config.server.grace_s
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe")} == {"/readyz"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    # The probe gives the event loop 5 s to answer.
    assert container["livenessProbe"]["timeoutSeconds"] > 5


def test_compose_mounts_what_is_there_and_what_the_settings_name() -> None:
    config = load_settings(SETTINGS, {}, {}).config
    made_by_the_reader = ("./keys", "./tls", "./galleries")
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./") and source not in made_by_the_reader:
                assert (DEPLOY / source).exists(), source
    ours = COMPOSE["services"]["mgrl"]
    inside = [volume.split(":")[1] for volume in ours["volumes"]]
    for file in (config.tls.certificate, config.tls.key, config.auth.keys, config.galleries["default"].path):
        assert any(str(file).startswith(path) for path in inside), file
    assert int(ours["stop_grace_period"].removesuffix("s")) > config.server.grace_s
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["mgrl:9090"]
    assert 'job="mgrl"' in (DEPLOY / "prometheus" / "alerts.yml").read_text()


def test_every_command_line_is_one_that_the_program_takes() -> None:
    import argparse

    from service.commands import serve

    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.add_arguments(parser)
    unit = (DEPLOY / "mgrl.service").read_text()
    started = re.search(r"^ExecStart=\S+/mgrl (.*)$", unit, re.MULTILINE)
    assert started is not None
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text()
    lines = [started[1].split(), *map(json.loads, re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE))]
    lines.append(COMPOSE["services"]["mgrl"]["command"])
    lines.append(BY_KIND["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"])
    assert len(lines) == 5
    for line in lines:
        assert line[0] == "serve"
        parser.parse_args(line[1:])


def test_the_images_settings_are_read_from_their_environment() -> None:
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text()
    pairs = " ".join(re.findall(r"^ENV (MGRL.*)$", dockerfile, re.MULTILINE)).split()
    environment = dict(pair.split("=") for pair in pairs) | {"MGRL_SERVER_INSECURE": "true"}
    config = load_settings(None, environment, {"galleries.x.path": ("x", "test")}).config
    assert (config.server.address, config.server.metrics_address) == ("0.0.0.0:50051", "0.0.0.0:9090")
    checks = re.findall(r"^    CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert len(checks) == 2
    for check in checks:
        assert ":9090/readyz" in json.loads(check)[-1]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    unit = tmp_path / "mgrl.service"
    unit.write_text((DEPLOY / "mgrl.service").read_text().replace("/opt/mgrl/bin/mgrl", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "mgrl.service" in line]
    assert (done.returncode, ours) == (0, [])
