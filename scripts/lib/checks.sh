# shellcheck shell=bash
# Sourced by the scripts: what can be said about the code without running it.

static_checks() {
  step "ruff format --check"
  "$VENV/bin/ruff" format --check .
  step "ruff check"
  "$VENV/bin/ruff" check .
  step "mypy"
  "$VENV/bin/mypy"
  step "lint-imports"
  # The linter reads the package from the folder that it is started in.
  PYTHONPATH=. "$VENV/bin/lint-imports" --no-cache | sed -n '/^Contracts:/p; /BROKEN/p; /broken/,$p'
}
