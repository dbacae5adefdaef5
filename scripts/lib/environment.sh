# shellcheck shell=bash
# Sourced by the scripts: from a bare machine with Python >= 3.11 to an environment with the locked packages.
#
# Nothing outside the repository is changed, except that Debian packages are installed when we are root; no
# daemon of theirs is started. Variables: PYTHON chooses the interpreter, VENV the environment's folder.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# Tests start hundreds of processes of ours: whoever compiles a module keeps that for the next one.
unset PYTHONDONTWRITEBYTECODE

step() { printf '\n== %s\n' "$*"; }

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

is_recent_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() { # prints the interpreter to use
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_recent_python "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11; do
    if is_recent_python "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed; none was found on PATH." "Set PYTHON=/path/to/python to choose one."
}

# Debian's daemons start when their package is installed, on their standard ports, unless this file says no.
policy_file=/usr/sbin/policy-rc.d

install_packages() { # NAME...: Debian packages, without starting what they bring
  local guarded=no status=0
  if [ ! -e "$policy_file" ]; then
    guarded=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy_file"
    chmod 755 "$policy_file"
  fi
  if ! quietly_install "$@" >/dev/null 2>&1; then
    apt-get update -qq >/dev/null && quietly_install "$@" || status=$?
  fi
  if [ "$guarded" = yes ]; then rm -f "$policy_file"; fi
  return "$status"
}

quietly_install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "$@" </dev/null >/dev/null
}

ensure_packages() { # FILE:PACKAGE...: installs the packages of which FILE (a path or a command) is missing
  local pair missing=()
  for pair in "$@"; do
    case ${pair%%:*} in
      /*) [ -e "${pair%%:*}" ] || missing+=("${pair#*:}") ;;
      *) PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}") ;;
    esac
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    printf 'Not installed: %s. What needs them is skipped (as root, on Debian, they are installed here).\n' "${missing[*]}"
    return 0
  fi
  step "installing ${missing[*]}"
  install_packages "${missing[@]}"
}

ensure_debian_postgres() { # Debian's own Postgres with wal2json, which decoding is compared with; no wheel has it
  local version folder
  case $(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null) in
    bookworm) version=15 ;;
    trixie) version=17 ;;
    *) return 0 ;;
  esac
  folder=/usr/lib/postgresql/$version
  ensure_packages "$folder/bin/postgres:postgresql-$version" "$folder/lib/wal2json.so:postgresql-$version-wal2json"
}

ensure_venv_module() { # INTERPRETER: Debian ships Python without the part that makes environments
  if "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; then return 0; fi
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    step "installing python3-venv"
    install_packages python3-venv
  fi
  "$1" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
    fail "$1 has no venv module." "On Debian and Ubuntu: apt-get install python3-venv"
}

fingerprint() { # INTERPRETER: changes when what is installed is no longer what is locked
  "$1" -c 'import hashlib, pathlib, sys, tomllib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
digest = hashlib.sha256(repr((sys.version, sys.prefix, project)).encode())
for path in sorted(pathlib.Path("requirements").glob("*.txt")):
    digest.update(path.read_bytes())
print(digest.hexdigest())'
}

ensure_environment() { # NAME...: makes $VENV hold requirements/NAME.txt and this package (editable)
  local name interpreter wanted missing=() options=(-r requirements/build.txt)
  VENV=${VENV:-.venv}
  interpreter=$(find_python)
  wanted=$(fingerprint "$interpreter")
  if [ ! -x "$VENV/bin/python" ] || ! grep -qsx "$wanted" "$VENV/.locked"; then rm -f "$VENV/.installed"; fi
  for name in "$@"; do
    grep -qsx "$name" "$VENV/.installed" || missing+=("$name")
  done
  if [ "${#missing[@]}" = 0 ]; then return 0; fi

  step "Python environment $VENV ($("$interpreter" --version 2>&1)): ${missing[*]}"
  ensure_venv_module "$interpreter"
  # After a change of versions it is made anew: what is no longer locked must not be found by accident.
  if [ ! -e "$VENV/.installed" ]; then "$interpreter" -m venv --clear "$VENV"; fi
  for name in "${missing[@]}"; do options+=(-r "requirements/$name.txt"); done
  "$VENV/bin/python" -m pip install --quiet --require-hashes "${options[@]}"
  "$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
  printf '%s\n' "$wanted" >"$VENV/.locked"
  printf '%s\n' "${missing[@]}" >>"$VENV/.installed"
}

ensure_node_packages() { # FOLDER: makes FOLDER/node_modules hold what its lock names
  if ! command -v npm >/dev/null; then return 0; fi
  if cmp -s "$1/package-lock.json" "$1/node_modules/.locked"; then return 0; fi
  step "node packages of $1"
  if npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null; then
    cp "$1/package-lock.json" "$1/node_modules/.locked"
  else
    printf 'npm could not install what %s names. What needs it is skipped.\n' "$1/package-lock.json"
  fi
}
