# shellcheck shell=bash
# Sourced by the scripts: what can be said about the code without running it.

static_checks() { # runs all of them; fails if one did
  local status=0
  step "ruff format --check"
  "$VENV/bin/ruff" format --check . || status=1
  step "ruff check"
  "$VENV/bin/ruff" check . || status=1
  step "mypy"
  "$VENV/bin/mypy" || status=1
  step "lint-imports"
  # The linter reads the package from the folder that it is started in.
  PYTHONPATH=. "$VENV/bin/lint-imports" --no-cache | sed -n '/^Contracts:/p; /BROKEN/p; /roken contracts/,$p' || status=1
  return "$status"
}
