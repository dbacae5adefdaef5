"""The two shows: the scenario once, with a verdict, or changes without end, to watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from typing import TYPE_CHECKING

from rich.live import Live

from invalidator.demo import scenario, view
from invalidator.demo.play import Player
from invalidator.demo.stage import raise_curtain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from invalidator.demo.play import Result
    from invalidator.demo.stage import Options, Stage

_INTERRUPTED = 130
_PAUSE_SECONDS = 0.15
_NOISE_SECONDS = 0.05


async def once(options: Options, *, as_json: bool) -> int:
    """Play the scenario and print a verdict; 0 when every layer was fresh in every case, 1 otherwise."""
    begin = time.perf_counter()
    out = view.console()
    talk = view.console(to_stderr=True) if as_json else out
    results: list[Result] = []
    with _signals(_cancel_me()):
        try:
            async with raise_curtain(options, talk.print) as stage:
                player = Player(stage)
                for case in scenario.CASES:
                    results.append(await player.play(case))
                    talk.print(view.block(results[-1]))
                versions = stage.versions
        except asyncio.CancelledError:
            return _INTERRUPTED
    seconds = time.perf_counter() - begin
    is_good = all(result.is_good for result in results)
    if as_json:
        cases = [result.as_json() for result in results]
        document = {"ok": is_good, "seconds": round(seconds, 1), "servers": versions, "measured": view.MEASURED}
        sys.stdout.write(json.dumps({**document, "cases": cases}, indent=2) + "\n")
    else:
        out.print(view.summary(results))
        out.print(view.MEASURED, style="dim")
        out.print(_verdict(results, seconds))
    return 0 if is_good else 1


async def live(options: Options, *, as_json: bool, seconds: float | None) -> int:
    """Play changes until q, Ctrl-C, SIGTERM or the time is over; 1 if a layer was stale meanwhile."""
    stop = asyncio.Event()
    talk = view.console(to_stderr=as_json)
    is_good = True
    with _signals(stop.set), _key("q", stop.set):
        async with raise_curtain(options, talk.print) as stage:
            if seconds is not None:
                asyncio.get_running_loop().call_later(seconds, stop.set)
            with _sink(stage, as_json=as_json) as (show, ignored):
                noise = asyncio.create_task(_noise(stage, ignored))
                try:
                    is_good = await _play_until(stop, Player(stage), show)
                finally:
                    noise.cancel()
                    await asyncio.wait([noise])
    return 0 if is_good else 1


async def _play_until(stop: asyncio.Event, player: Player, show: Callable[[Result], None]) -> bool:
    is_good = True
    for case in scenario.endless():
        result = await player.play(case)
        is_good = is_good and result.is_good
        show(result)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_SECONDS):
                await stop.wait()
        if stop.is_set():
            break
    return is_good


async def _noise(stage: Stage, ignored: Callable[[], None]) -> None:
    """Sales: each changes a stock, which no page shows. They come beside everything else and must drop nothing."""
    connection = await stage.connect()
    async with connection:
        while True:
            await connection.execute("UPDATE products SET stock = stock - 1 WHERE id = 301 + (random() * 290)::int")
            ignored()
            await asyncio.sleep(_NOISE_SECONDS)


@contextlib.contextmanager
def _sink(stage: Stage, *, as_json: bool) -> Iterator[tuple[Callable[[Result], None], Callable[[], None]]]:
    """Where results go: a live table on a terminal, else one line each."""
    out = view.console()
    if as_json:
        yield lambda result: print(json.dumps(result.as_json()), flush=True), lambda: None  # noqa: T201
        return
    if not out.is_terminal:
        yield lambda result: print(view.line(result), flush=True), lambda: None  # noqa: T201
        return
    heading = "  ·  ".join(f"{name} {version}".strip() for name, version in stage.versions.items())
    table = view.LiveView(f"{heading}  ·  daemon at {stage.daemon.url}/status", out.height)
    with Live(table, console=out, refresh_per_second=8) as screen:

        def show(result: Result) -> None:
            table.add(result)
            screen.update(table)

        def ignored() -> None:
            table.ignored += 1

        yield show, ignored


def _verdict(results: list[Result], seconds: float) -> str:
    bad = [result.case.name for result in results if not result.is_good]
    if bad:
        return f"[bold red]{len(bad)} of {len(results)} cases went wrong[/]: {', '.join(bad)}   ({seconds:.1f} s)"
    return f"[bold green]nothing stale is left in any layer[/] after {len(results)} cases   ({seconds:.1f} s)"


def _cancel_me() -> Callable[[], object]:
    task = asyncio.current_task()
    return task.cancel if task is not None else lambda: None


@contextlib.contextmanager
def _signals(act: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C and SIGTERM act instead of ending us at once, so that everything is cleaned up."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _key(key: str, act: Callable[[], object]) -> Iterator[None]:
    """Act when the key is pressed, without Enter; nothing where standard input is no terminal."""
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        if key in sys.stdin.read(1):
            act()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
