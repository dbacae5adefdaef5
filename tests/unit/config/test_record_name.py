"""Under which name a record is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from invalidator import config


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{type: pgoutput, slot: shop}", "shop"),
        ("{type: outbox, name: shop}", "shop"),
        ("{type: notify, channels: [changes], name: shop}", "shop"),
        ("{type: notify, channels: [changes]}", "notify"),
    ],
)
def test_daemons_of_different_names_keep_different_records(tmp_path: Path, source: str, name: str) -> None:
    file = tmp_path / "invalidator.yaml"
    file.write_text(f"source: {source}\nrules: rules.yaml\ntargets: {{l2: {{type: redis_keys, url: 'redis://r'}}}}\n")
    assert config.load(file, environment={}).source.record_name == name
