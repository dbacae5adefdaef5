"""The systemd unit is accepted by systemd and ends for good when only a person can help."""

from __future__ import annotations

import asyncio
import configparser
from pathlib import Path

from invalidator.config import load
from invalidator.postgres.options import DatabaseOptions
from tests.support.tools import ROOT, find_tool, run_tool

UNIT = ROOT / "deploy" / "systemd" / "invalidator.service"
PROGRAM = "/opt/invalidator/bin/invalidator"


def service() -> dict[str, list[str]]:
    """The section [Service]: each name with all its values."""
    found: dict[str, list[str]] = {}
    section = UNIT.read_text().split("[Service]")[1].split("[Install]")[0]
    for line in section.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert PROGRAM in text
    here = tmp_path / "invalidator.service"
    here.write_text(text.replace(PROGRAM, "/bin/true"))

    result = run_tool(find_tool("systemd-analyze", "systemd"), "verify", "--man=no", here)

    assert (result.returncode, result.stdout) == (0, "")


def test_systemd_would_speak_of_a_misspelled_option(tmp_path: Path) -> None:
    here = tmp_path / "invalidator.service"
    here.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true").replace("ProtectHome", "ProtectHouse"))

    result = run_tool(find_tool("systemd-analyze", "systemd"), "verify", "--man=no", here)

    assert "ProtectHouse" in result.stdout


def test_the_unit_starts_again_after_every_end_but_a_configuration_error() -> None:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.read(UNIT)

    assert service()["Restart"] == ["always"]
    assert service()["RestartPreventExitStatus"] == ["78"]
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_credential_of_the_unit_is_read_as_the_setting_that_it_is_called_after(tmp_path: Path) -> None:
    name = service()["LoadCredential"][0].split(":")[0]
    (tmp_path / name).write_text("postgresql://from-the-credential/shop\n")

    settings = load(ROOT / "deploy/compose/settings.yaml", environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert isinstance(settings.source, DatabaseOptions)
    assert asyncio.run(settings.source.address.parameters()) == {"host": "from-the-credential", "dbname": "shop"}
