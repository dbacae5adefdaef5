"""A Varnish with vmod xkey of our own, when the machine has them, with the VCL that the project ships."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

from invalidator.demo.servers.locate import ServerMissing
from invalidator.demo.servers.process import spawn, unprivileged_account
from invalidator.demo.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODULES: Final = (
    "/usr/lib/*/varnish/vmods",
    "/usr/lib/varnish/vmods",
    "/usr/lib64/varnish/vmods",
    "/usr/local/lib/varnish/vmods",
    "/opt/homebrew/lib/varnish/vmods",
)


_SECRET: Final = "INVALIDATOR_PURGE_SECRET"  # noqa: S105  (its name)
"""The variable from which invalidator.vcl reads it."""


def find_varnish() -> Path:
    """The ``varnishd`` binary, if vmod xkey and a C compiler (VCL is compiled) are there too.

    Raises:
        ServerMissing: one of them is not; the message says which.
    """
    install = "apt-get install varnish varnish-modules"
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    binary = shutil.which("varnishd", path=search)
    if binary is None:
        msg = f"no varnishd found: {install}"
        raise ServerMissing(msg)
    if not any(next(Path("/").glob(f"{folder[1:]}/libvmod_xkey.so"), None) for folder in _MODULES):
        msg = f"varnishd has no vmod xkey: {install}"
        raise ServerMissing(msg)
    if not any(shutil.which(compiler) for compiler in ("gcc", "cc", "clang")):
        msg = "varnishd needs a C compiler for VCL: apt-get install gcc"
        raise ServerMissing(msg)
    return Path(binary)


class VarnishServer(Server):
    """A running Varnish in front of one origin; everything of it is gone after :meth:`close`.

    Args:
        origin_port: where the origin listens on this machine.
        vcl: the folder with ``default.vcl`` and ``invalidator.vcl``.
        secret: what a purge must bring along; None: purges need none.

    Raises:
        ServerMissing: Varnish is not installed.
        ServerFailed: it does not start; the message holds its log.
    """

    ending = signal.SIGTERM

    def __init__(self, origin_port: int, vcl: Path, *, secret: str | None = None) -> None:
        self._origin_port = origin_port
        self._vcl = vcl
        self._secret = secret
        super().__init__("varnish", unprivileged_account())

    @property
    def url(self) -> str:
        """Where visitors and the daemon reach it."""
        return f"http://127.0.0.1:{self.port}"

    def version(self) -> str:
        """What it calls itself, ``7.1.1``."""
        answer = subprocess.run([self._binary, "-V"], capture_output=True, text=True, check=False)  # noqa: S603
        _, _, rest = (answer.stderr + answer.stdout).partition("varnish-")
        return rest.split()[0] if rest else "of unknown version"

    def watch_purges(self) -> subprocess.Popen[bytes]:
        """A process that writes one line per purge, its tags, as it happens; the caller ends it."""
        command: Sequence[str | Path] = [
            "varnishncsa", "-n", self._base / "work", "-q", 'ReqMethod eq "PURGE"',
            "-F", "%{xkey-purge}i %{xkey-softpurge}i",
        ]  # fmt: skip
        return spawn(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _prepare(self) -> None:
        self._binary = find_varnish()
        self._write_vcl(self._origin_port, self._vcl)

    def _write_vcl(self, origin_port: int, vcl: Path) -> None:
        # Copied, because Varnish reads VCL as a user of its own, for whom our files may lie too deep.
        default = (vcl / "default.vcl").read_text(encoding="utf-8")
        default = default.replace('.host = "origin"', '.host = "127.0.0.1"')
        default = default.replace('.port = "8080"', f'.port = "{origin_port}"')
        (self._base / "default.vcl").write_text(default, encoding="utf-8")
        shutil.copyfile(vcl / "invalidator.vcl", self._base / "invalidator.vcl")
        for file in self._base.path.glob("*.vcl"):
            file.chmod(0o644)

    def _environment(self) -> dict[str, str]:
        """Ours, but for a secret of another Varnish."""
        kept = {name: value for name, value in os.environ.items() if name != _SECRET}
        return kept if self._secret is None else {**kept, _SECRET: self._secret}

    def _start(self, port: int) -> None:
        command: list[str | Path] = [self._binary, "-F", "-a", f"127.0.0.1:{port}", "-T", "none"]
        command += ["-f", self._base / "default.vcl", "-n", self._base / "work", "-s", "malloc,32m"]
        url = f"http://127.0.0.1:{port}/.well-known/invalidator"
        # As ourselves: it gives root's rights up by itself. SIGTERM also ends its worker process.
        self._run(
            command, lambda: _answers(url), account=None, environment=self._environment(), last_signal=signal.SIGTERM
        )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  (our own URL)
            return int(answer.status) == 200
    except OSError:
        return False
