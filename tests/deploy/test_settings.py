"""Settings, rules and variables in deploy files are what the daemon of this repository understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from invalidator.config import load
from invalidator.errors import ConfigError
from invalidator.rules import document
from tests.support.tools import ROOT

DEPLOY = ROOT / "deploy"
YAML_FILES = sorted([*DEPLOY.rglob("*.yml"), *DEPLOY.rglob("*.yaml")])
KUBERNETES = DEPLOY / "kubernetes" / "deployment.yml"
VARIABLE = re.compile(r"\bINVALIDATOR_[A-Z0-9_]+")
# Read by others: the VCL compares the header of a purge with it.
FOREIGN = {"INVALIDATOR_PURGE_SECRET"}
# Where the containers have their settings and rules.
MOUNTED = "/etc/invalidator/"


def configuration(folder: Path) -> Path:
    """The settings of the Kubernetes manifests, written into the folder as the container sees them."""
    for manifest in yaml.safe_load_all(KUBERNETES.read_text()):
        if manifest["kind"] == "ConfigMap":
            for name, text in manifest["data"].items():
                (folder / name).write_text(text.replace(MOUNTED, f"{folder}/"))
    return folder / "settings.yaml"


def compose_environment() -> dict[str, str]:
    """What the compose file puts into the daemon's environment."""
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yml").read_text())
    environment: dict[str, str] = compose["services"]["invalidator"]["environment"]
    return environment


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_yaml_file_loads(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text()))


def test_every_variable_in_the_deploy_files_is_a_setting(tmp_path: Path) -> None:
    files = [ROOT / "Dockerfile", *(path for path in DEPLOY.rglob("*") if path.is_file())]
    used = {name for path in files for name in VARIABLE.findall(path.read_text(errors="ignore"))} - FOREIGN
    assert "INVALIDATOR_SOURCE__DSN" in used
    secret = tmp_path / "secret"  # what a variable ending in _FILE names has to be there
    secret.write_text("postgresql://postgres/shop")  # a text that is a DSN too
    values = {"INVALIDATOR_HTTP__LISTEN": "0.0.0.0:8642", "INVALIDATOR_SOURCE__DSN": secret.read_text()}
    environment = {name: str(secret) if name.endswith("_FILE") else values.get(name, "text") for name in used}
    # A variable and its form with _FILE exclude each other.
    for ending in (True, False):
        chosen = {name: value for name, value in environment.items() if name.endswith("_FILE") is ending}
        load(DEPLOY / "compose" / "settings.yaml", environment=chosen)


def test_a_misspelled_variable_would_be_found() -> None:
    with pytest.raises(ConfigError, match="unknown variable INVALIDATOR_SORCE__DSN"):
        load(DEPLOY / "compose" / "settings.yaml", environment={"INVALIDATOR_SORCE__DSN": "x"})


def test_the_compose_file_starts_the_daemon_with_settings_and_rules_that_load() -> None:
    settings = load(DEPLOY / "compose" / "settings.yaml", environment=compose_environment())
    rules = [str(path) for path in settings.rules]

    assert rules == [f"{MOUNTED}rules.yaml"]
    assert document.load([DEPLOY / "compose" / "rules.yaml"]).rules
    assert [type(options).__module__.rpartition(".")[2] for options in settings.targets.values()] == [
        "redis_keys",
        "redis_bus",
        "varnish",
    ]


def test_the_kubernetes_manifests_hold_settings_and_rules_that_load(tmp_path: Path) -> None:
    settings = load(configuration(tmp_path), environment={})

    assert document.load(settings.rules).rules


def test_the_secret_of_the_compose_file_is_the_one_that_varnish_compares_with() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yml").read_text())
    wanted = compose["services"]["varnish"]["environment"]["INVALIDATOR_PURGE_SECRET"]
    settings = load(DEPLOY / "compose" / "settings.yaml", environment=compose_environment())

    assert settings.targets["edge"].model_dump()["secret"].get_secret_value() == wanted
