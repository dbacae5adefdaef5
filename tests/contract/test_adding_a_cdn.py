"""The promise of docs/how-to/add-a-cdn.md: one code file and one test file, and everything else finds them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "add-a-cdn.md"
_BLOCK = re.compile(r"`?([\w/]+\.py)`?:\n\n```python\n(.*?)```\n", re.DOTALL)


def blocks() -> dict[str, str]:
    """Path to content, of each block that the page gives a path for."""
    return dict(_BLOCK.findall(PAGE.read_text()))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and the suites that every CDN must pass, with the page's two files added to it."""
    copy = tmp_path_factory.mktemp("acme")
    ignored = shutil.ignore_patterns("__pycache__", Path(__file__).name)
    for part in ("invalidator", "tests/contract", "tests/support"):
        shutil.copytree(ROOT / part, copy / part, ignore=ignored)
    for part in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / part, copy / part)
    for path, content in blocks().items():
        assert not (copy / path).exists()
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_text(content)
    return copy


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=500)


def test_a_cdn_is_one_short_code_file_and_one_test_file() -> None:
    assert list(blocks()) == ["invalidator/targets/cdn/acme.py", "tests/unit/targets/cdn/test_acme.py"]
    assert len(blocks()["invalidator/targets/cdn/acme.py"].splitlines()) <= 40


def test_the_suites_of_all_targets_find_it_and_it_passes(copy: Path) -> None:
    suites = ("tests/contract", "tests/unit/targets/cdn/test_acme.py")
    # The page says itself that the reference has to name a new type.
    chosen = ("-k", "acme and not test_the_type_is_documented")
    done = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suites, *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50
    assert "skipped" not in done.stdout


def test_the_settings_know_it_and_say_what_is_wrong_with_it(copy: Path) -> None:
    (copy / "rules.yaml").write_text("rules: []\n")
    (copy / "good.yaml").write_text(_settings("zone: shop1"))
    (copy / "bad.yaml").write_text(_settings("zon: shop1"))
    program = """if True:
        import sys
        from pathlib import Path
        from invalidator import config, registry
        settings = config.load(Path(sys.argv[1]), environment={})
        print(registry.types("targets")["acme"], type(settings.targets["edge"]))
    """
    good = run(copy, "-c", program, "good.yaml")
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("invalidator.targets.cdn.acme ")
    bad = run(copy, "-c", program, "bad.yaml")
    assert bad.returncode != 0
    assert "zone" in bad.stderr
    assert "bad.yaml:" in bad.stderr


def _settings(line: str) -> str:
    return f"""\
rules: rules.yaml
source:
  type: pgoutput
  dsn: postgresql://localhost/shop
  slot: invalidator
  publication: invalidator
targets:
  edge:
    type: acme
    access_key: key
    {line}
"""
