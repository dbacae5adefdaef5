"""Child processes that cannot outlive us, run without root's rights, and listen on a port that was free."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from invalidator.errors import InvalidatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

_LEASH: Final = Path(__file__).with_name("leash.py")
# Below the range from which Linux (32768) and macOS (49152) take the ports of outgoing connections: nobody's
# connection can grab the port of a server while that server is down between two starts.
_PORTS: Final = range(20_000, 32_000)
_MAX_PORT_RACES: Final = 5
_LOG_TAIL_BYTES: Final = 4_000

# The parent-death signal fires when the *thread* that forked ends. This thread ends with the interpreter, so
# servers may be started from any thread, short-lived ones included.
_STARTER: Final = ThreadPoolExecutor(1, thread_name_prefix="server-starter")


class ServerFailed(InvalidatorError):  # noqa: N818
    """A local server ended or did not become ready; the message holds the end of its log."""


class PortTaken(ServerFailed):
    """Somebody took the port between our look and the server's bind."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a server runs as."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Whom servers run as: ``postgres`` or ``nobody`` when we are root, otherwise None for ourselves.

    Postgres refuses to run as root, and initdb needs a passwd entry for its user.

    Raises:
        ServerFailed: we are root and neither user exists.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    msg = "running as root, and there is neither a user 'postgres' nor 'nobody' to run the servers as"
    raise ServerFailed(msg)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment; the bind may still lose a race for it."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            # As the servers do: a connection of an earlier server in TIME_WAIT does not make a port taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                    continue
                raise
            return port
    msg = f"no free port between {_PORTS.start} and {_PORTS.stop}"
    raise ServerFailed(msg)


def on_free_port(start: Callable[[int], None]) -> int:
    """Call ``start`` with free ports until it does not lose the race for one; returns that port.

    Raises:
        PortTaken: the race was lost several times in a row.
    """
    for attempt in range(1, _MAX_PORT_RACES + 1):
        port = free_port()
        try:
            start(port)
        except PortTaken:
            if attempt == _MAX_PORT_RACES:
                raise
        else:
            return port
    raise AssertionError  # pragma: no cover


def spawn(
    command: Sequence[str | Path],
    *,
    account: Account | None = None,
    last_signal: signal.Signals = signal.SIGKILL,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = "/",
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start a child that gets ``last_signal`` when this process ends, however it ends (Linux).

    The child has a session of its own, so a Ctrl-C in the terminal reaches only us, and we stop it in order.
    """
    uid, gid = ("-", "-") if account is None else (str(account.uid), str(account.gid))
    leash: list[str | Path] = [sys.executable, "-I", "-S", _LEASH, str(os.getpid()), str(int(last_signal)), uid, gid]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  (our own command line)
            [*leash, *command],
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    return _STARTER.submit(start).result()


def run_as(command: Sequence[str | Path], account: Account | None) -> subprocess.CompletedProcess[bytes]:
    """Run a short command to its end as the account, from a directory that everybody may enter.

    Raises:
        OSError: the account cannot execute it.
    """
    if account is None:
        return subprocess.run(command, capture_output=True, check=False, cwd="/")  # noqa: S603
    return subprocess.run(  # noqa: S603
        command, capture_output=True, check=False, cwd="/", user=account.uid, group=account.gid, extra_groups=[]
    )


def wait_until(condition: Callable[[], bool], *, what: str, deadline_seconds: float = 30) -> None:
    """Return once the condition holds.

    Raises:
        ServerFailed: it did not hold in time.
    """
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        if time.monotonic() > deadline:
            msg = f"{what}: not within {deadline_seconds:g} s"
            raise ServerFailed(msg)
        time.sleep(0.003)


def log_tail(path: Path, *, since: int = 0) -> str:
    """The last few thousand bytes of a log file, not going back before ``since``."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(since, end - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def end(process: subprocess.Popen[bytes] | None, sign: signal.Signals, *, deadline_seconds: float = 30) -> None:
    """Send the signal and wait for the end; kill after the deadline and say so.

    Raises:
        ServerFailed: the process had to be killed.
    """
    if process is None or process.poll() is not None:
        return
    process.send_signal(sign)
    try:
        process.wait(deadline_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        msg = f"process {process.pid} did not end within {deadline_seconds:g} s of {sign.name} and was killed"
        raise ServerFailed(msg) from None
