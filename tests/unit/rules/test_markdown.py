"""Rule files in Markdown pages are found, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from invalidator.rules.markdown import rule_blocks

PAGE = """\
# Title

```yaml
version: 1
rules: []
```

```yaml invalid
rules: [
```

```sh
rules:
```

* a list

  ~~~yml
  rules:
    - x
  ```
  ~~~

```yaml
targets: {}
rules: some.yaml
```

```yaml
version: 1
"""


def test_each_block_stands_at_its_lines() -> None:
    first, second, third = rule_blocks(PAGE)

    assert first == "\n" * 3 + "version: 1\nrules: []\n"
    assert second == "\n" * 18 + "  rules:\n    - x\n  ```\n"
    assert third.lstrip("\n").startswith("version: 1")
    for block in (first, second, third):
        number = len(block) - len(block.lstrip("\n"))
        assert PAGE.split("\n")[number] == block.split("\n")[number]


@pytest.mark.parametrize("page", ["", "rules:\n", "```\nrules:\n```\n", "```yaml\nversion: '3'\nservices: {}\n```\n"])
def test_pages_without_rules_have_none(page: str) -> None:
    assert rule_blocks(page) == []
