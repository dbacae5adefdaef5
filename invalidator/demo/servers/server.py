"""What every local server is: one child on one loopback port, with a directory that goes when it does."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from invalidator.demo.servers.directory import ServerDirectory
from invalidator.demo.servers.process import (
    PortTaken,
    ServerFailed,
    end,
    log_tail,
    on_free_port,
    spawn,
    wait_until,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

    from invalidator.demo.servers.process import Account


class Server:
    """A running server; everything of it is gone after :meth:`close`.

    Args:
        directory: what its directory's name begins with.
        account: whom it runs as; None for ourselves.
    """

    ending: ClassVar[signal.Signals] = signal.SIGKILL
    """What ends it when nobody needs its state any more."""

    def __init__(self, directory: str, account: Account | None) -> None:
        self._account = account
        self._base = ServerDirectory(directory, account)
        self._log = self._base / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        try:
            self._prepare()
            self.port = on_free_port(self._start)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process, for signals such as SIGSTOP."""
        if self._process is None:
            msg = "the server is not started"
            raise ServerFailed(msg)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start again on the same port. Does nothing while the server runs."""
        if not self.running:
            self._start(self.port)

    def stop(self) -> None:
        """Shut down in order (SIGTERM) and wait for the end."""
        end(self._process, signal.SIGTERM)

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End at once (SIGKILL), as a crash does."""
        end(self._process, signal.SIGKILL)

    def log_tail(self) -> str:
        """The end of the server's log."""
        return log_tail(self._log)

    def close(self) -> None:
        """End the server and remove its directory."""
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a stopped process would not see the next signal
            end(self._process, self.ending)
        self._base.remove()

    def _prepare(self) -> None:
        """Find the binary, write what the server reads."""
        raise NotImplementedError

    def _start(self, port: int) -> None:
        """Start on this port and return when it answers.

        Raises:
            PortTaken: somebody else was quicker.
            ServerFailed: it does not start.
        """
        raise NotImplementedError

    def _run(
        self,
        command: Sequence[str | Path],
        answers: Callable[[], bool],
        *,
        account: Account | None,
        environment: Mapping[str, str] | None = None,
        last_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start the command in our directory and return when it answers.

        Raises:
            PortTaken, ServerFailed: it ended before.
        """
        with self._log.open("ab") as log:
            written = log.tell()
            process = self._process = spawn(
                command,
                account=account,
                env=environment,
                stdout=log,
                cwd=self._base.path,
                last_signal=last_signal,
            )

        def is_up() -> bool:
            if process.poll() is not None:
                raise self._ended(Path(command[0]), log_tail(self._log, since=written))
            return answers()

        wait_until(is_up, what=f"{Path(command[0]).name} answers")

    def _ended(self, binary: Path, log: str) -> ServerFailed:
        """Why the process is gone, from what it wrote."""
        code = None if self._process is None else self._process.returncode
        failure = PortTaken if "already in use" in log else ServerFailed
        return failure(f"{binary.name} ended with code {code}:\n{log}")
