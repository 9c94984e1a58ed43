"""One child process: in its own session, its output read by lines, stopped with a bound."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TextIO

__all__ = ['Child', 'ChildLog', 'ChildSpec', 'StopTimes']

MAX_LINE = 8192            # bytes; a longer line is cut into pieces
MAX_LOG_BYTES = 16 << 20   # then the log moves to <name>.log.1 and starts again
_SHIM = Path(__file__).with_name('_exec_shim.py')


@dataclass(frozen=True)
class ChildSpec:
    """
    What to run.

    :param environment: the whole environment of the process.
    :param stop_order: children with a lower number are stopped first, equal ones together.
    :param stop_timeout: s from SIGINT to SIGTERM.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    respawn: bool = False
    essential: bool = False
    stop_order: int = 0
    stop_timeout: float = 5.0


@dataclass(frozen=True)
class StopTimes:
    """
    Bounds of a stop [s].

    :param terminate: from SIGTERM to SIGKILL.
    :param kill: for the kernel to remove a killed process.
    :param hastened: what is left of any wait when the operator asks a second time.
    :param second: a request sooner than this after the first is the same one: some programs hand
        one Ctrl-C on twice.
    """

    terminate: float = 2.0
    kill: float = 2.0
    hastened: float = 1.0
    second: float = 0.3


class ChildLog:
    """
    The log file of one child, bounded; a disk that fails stops the log, never the child.

    :param report: called once with a sentence when the log cannot be written.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._file: Optional[TextIO] = None
        self._bytes = 0
        self._failed = False

    def write(self, line: str) -> None:
        """Append a line with the time of day."""
        if self._failed:
            return
        try:
            if self._file is None or self._bytes > MAX_LOG_BYTES:
                self._open()
            assert self._file is not None
            text = f'{time.strftime("%H:%M:%S")} {line}\n'
            self._file.write(text)
            self._bytes += len(text)
        except OSError as err:
            self._failed = True
            self._report(f'log {self._path} cannot be written: {err.strerror}; going on without')

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as err:
                self._report(f'log {self._path} is incomplete: {err.strerror}')
            self._file = None

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.replace(self._path.with_suffix('.log.1'))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open('a', buffering=1, encoding='utf-8', errors='replace')
        self._bytes = 0


class Child:
    """
    One life of a child process, in the event loop's thread.

    The kernel signals a child when the *thread* that started it ends, so the loop must run in the
    main thread.

    :param on_line: called with every line of output, without its newline.
    """

    def __init__(self, spec: ChildSpec, on_line: Callable[[str], None], tail: int = 20) -> None:
        self.spec = spec
        self.tail: deque[str] = deque(maxlen=tail)
        self._on_line = on_line
        self._process: Optional[asyncio.subprocess.Process] = None
        self._begun = asyncio.Event()
        self._exited = asyncio.Event()
        self._watcher: Optional[asyncio.Task[None]] = None
        self.returncode: Optional[int] = None
        self.started = 0.0     # time.monotonic of the start [s]
        self.asked = False     # to stop

    @property
    def pid(self) -> int:
        """Process id, which is also its process group; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and not self._exited.is_set()

    async def start(self) -> None:
        """Start the process in a session of its own, tied to this process by the kernel."""
        self.started = time.monotonic()
        # A pipe of our own: asyncio's says that a process is over only when nobody has its pipe
        # open any more, and a grandchild may.
        read_end, write_end = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, '-I', '-S', str(_SHIM), str(os.getpid()), *self.spec.argv,
                stdin=asyncio.subprocess.DEVNULL, stdout=write_end,
                stderr=asyncio.subprocess.STDOUT, env=dict(self.spec.environment),
                start_new_session=True)
            self._watcher = asyncio.create_task(self._watch(self._process, read_end))
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
            self._begun.set()

    async def wait(self) -> int:
        """Wait until it is gone and its output is read; return its exit code."""
        await self._exited.wait()
        assert self.returncode is not None
        return self.returncode

    async def stop(self, times: StopTimes, haste: asyncio.Event) -> Optional[str]:
        """
        Stop it: SIGINT, then SIGTERM, then SIGKILL to the whole group, each with a bound.

        :param haste: when set, what is left of a wait shrinks to ``times.hastened``.
        :return: a sentence when it had to be forced, else None.
        """
        await self._begun.wait()    # a start under way is completed first, lest it be missed
        if not self.alive:
            return None
        self.asked = True
        for number, bound in ((signal.SIGINT, self.spec.stop_timeout),
                              (signal.SIGTERM, times.terminate)):
            self._signal(number)
            if await self._gone(bound, times.hastened, haste):
                if number == signal.SIGINT:
                    return None
                return f'{self.spec.name} did not stop on SIGINT; SIGTERM stopped it'
        self._kill_group()
        if await self._gone(times.kill, times.kill, haste):
            return f'{self.spec.name} did not stop on SIGINT and SIGTERM; killed'
        return f'{self.spec.name} (pid {self.pid}) does not go away even when killed'

    async def _gone(self, bound: float, hastened: float, haste: asyncio.Event) -> bool:
        exited = asyncio.ensure_future(self._exited.wait())
        hurry = asyncio.ensure_future(haste.wait())
        try:
            if not haste.is_set():
                await asyncio.wait({exited, hurry}, timeout=bound,
                                   return_when=asyncio.FIRST_COMPLETED)
            if haste.is_set() and not self._exited.is_set():
                await asyncio.wait({exited}, timeout=min(bound, hastened))
        finally:
            exited.cancel()
            hurry.cancel()
        return self._exited.is_set()

    async def _watch(self, process: asyncio.subprocess.Process, output: int) -> None:
        reader = asyncio.create_task(self._read(output))
        code = await process.wait()
        self._kill_group()    # what the child has left behind
        # A grandchild that left the group may keep the pipe open for ever.
        await asyncio.wait({reader}, timeout=0.5)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        self.returncode = code
        self._exited.set()

    async def _read(self, output: int) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(output, 'rb', buffering=0))
        rest = b''
        try:
            while block := await stream.read(65536):
                *lines, rest = (rest + block).split(b'\n')
                if len(rest) > MAX_LINE:
                    lines, rest = [*lines, rest], b''
                for line in lines:
                    for start in range(0, max(len(line), 1), MAX_LINE):
                        self._emit(line[start:start + MAX_LINE])
        finally:
            if rest:
                self._emit(rest)
            transport.close()

    def _emit(self, line: bytes) -> None:
        text = line.decode('utf-8', 'replace').rstrip('\r')
        self.tail.append(text)
        self._on_line(text)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            return    # it went by itself; the watcher is about to say so

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return    # nobody is left in the group
