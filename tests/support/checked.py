"""A folder with rules and settings over real servers, and ``check`` as a user runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from invalidator.preflight.facts import Facts, gather
from tests.support.commandline import Ended, run_beside_a_loop
from tests.support.postgres import Database


class Project:
    """A folder with rules and settings."""

    def __init__(self, folder: Path, database: Database, redis_url: str) -> None:
        self.folder = folder
        self.database = database
        self.source: dict[str, Any] = {"type": "pgoutput", "dsn": database.dsn, "slot": database.name}
        self.targets: dict[str, Any] = {"redis": {"type": "redis_keys", "url": redis_url}}

    def write(self, rules: str) -> None:
        """Write both files; the rules as entries of ``rules:``."""
        (self.folder / "rules.yaml").write_text("version: 1\nrules:\n" + rules)
        settings = {"rules": "rules.yaml", "source": self.source, "targets": self.targets}
        (self.folder / "invalidator.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

    def run(self, *arguments: str) -> Ended:
        """Run a verb in the folder."""
        environment = {"INVALIDATOR_SETTINGS": "invalidator.yaml"}
        return run_beside_a_loop(self.folder, *arguments, environment=environment)

    def set_up(self) -> None:
        """Make publication and slot as ``setup`` would, without touching tables."""
        ended = self.run("setup", "--apply", "--keep-identity")
        assert "Traceback" not in ended.errors, ended.errors

    async def facts(self, needs: Any) -> Facts:
        """The database as the checks see it."""
        from invalidator.postgres.connection import connect

        async with await connect(self.database.dsn, application_name="test") as connection:
            return await gather(connection, needs, slot=self.database.name, publication="invalidator")


@pytest.fixture
def checked(tmp_path: Path, database: Database, redis_url: str) -> Project:
    """A folder over the session's servers."""
    return Project(tmp_path, database, redis_url)
