"""
XPolicyLab's policy server around ``Model``: RoboTwin connects to it from its own environment.

    python -m mivla_policy.robotwin.server --config deploy.yml

It listens on loopback alone, since its protocol knows no password: from another machine, through
a tunnel (``ssh -L``). What a client gets wrong is answered with an error frame.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from mivla_core.errors import MivlaError
from mivla_core.small_file import read_yaml
from mivla_policy.errors import ConfigError, ObservationError, PolicyError, WireError
from mivla_policy.robotwin.wire import ANSWERS, MAX_FRAME, Frame, decode, encode
from mivla_policy.robotwin.xpolicylab import Model

__all__ = ['ModelServer', 'ServerSettings', 'main']

_MAX_CONFIG = 1 << 20
# websockets logs whole tracebacks for what any stranger can cause.
_QUIET = logging.getLogger('mivla.robotwin')
_QUIET.setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class ServerSettings:
    """
    Where the server is, and its bounds.

    :param host: a loopback address.
    :param port: 0 lets the system choose one.
    :param connections: at most so many clients at a time.
    :param send_s: for a client to read an answer.
    """

    host: str = '127.0.0.1'
    port: int = 6000
    connections: int = 8
    send_s: float = 30.0

    def __post_init__(self) -> None:
        """Raise ConfigError for an address that others can reach."""
        try:
            mine = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            mine = self.host == 'localhost'
        if not mine:
            raise ConfigError(f'host is {self.host!r}: the protocol has no password, so it is '
                              'served on loopback only; use a tunnel (ssh -L) from elsewhere')


class ModelServer:
    """
    Serves a model; one question at a time.

    :param model: with the methods of ``Model``.
    :param say: told one line about what an operator may want to know.
    """

    def __init__(self, model: Model, settings: ServerSettings,
                 say: Callable[[str], None] = lambda text: None) -> None:
        self._model, self.settings, self._say = model, settings, say
        self._lock = asyncio.Lock()
        self._clients = 0
        self._server: Optional[Server] = None

    async def start(self) -> int:
        """Open the door; return its port."""
        self._server = await serve(
            self._client, self.settings.host, self.settings.port, max_size=MAX_FRAME,
            compression=None, logger=_QUIET, origins=[None])
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def stop(self) -> None:
        """Send everybody away and close."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def run(self) -> None:
        """Serve until it is cancelled."""
        port = await self.start()
        self._say(f'listening on ws://{self.settings.host}:{port}')
        try:
            await asyncio.Future()
        finally:
            await self.stop()

    async def _client(self, connection: ServerConnection) -> None:
        if self._clients >= self.settings.connections:
            await connection.close(1013, 'too many clients')
            return
        self._clients += 1
        try:
            await self._converse(connection)
        except (ConnectionClosed, asyncio.TimeoutError) as err:
            self._say(f'a client has gone: {" ".join(str(err).split()) or "too slow"}')
        finally:
            self._clients -= 1

    async def _converse(self, connection: ServerConnection) -> None:
        async for data in connection:
            try:
                if isinstance(data, str):
                    raise WireError('a text came; frames are msgpack')
                request = decode(data)
            except WireError as err:
                # Whoever it is, it speaks something else.
                self._say(f'a client is dropped: {err}')
                await connection.close(1007, 'not a frame')
                return
            answer = await self._answer(request)
            if answer is None:
                return
            await asyncio.wait_for(connection.send(encode(answer)), self.settings.send_s)

    async def _answer(self, request: Frame) -> Optional[Frame]:
        """Return the answer to a request; None to 'close'."""
        if request.kind == 'close':
            return None
        if request.kind not in ANSWERS:
            return _error(request, 'unknown_message_type', f'no request {request.kind!r}')
        kind = ANSWERS[request.kind]
        try:
            if request.kind == 'reset':
                async with self._lock:
                    self._model.reset()
            if request.kind == 'infer':
                return request.answer(kind, await self._infer(request))
        except ObservationError as err:
            return _error(request, 'infer_failed', str(err))
        except PolicyError as err:
            failed = 'reset_failed' if request.kind == 'reset' else 'infer_failed'
            return _error(request, failed, str(err))
        return request.answer(kind, {'ok': True, **({'server': 'mivla'} if request.kind == 'hello'
                                                    else {})})

    async def _infer(self, request: Frame) -> Mapping[str, Any]:
        observation = request.payload.get('observation')
        if not isinstance(observation, Mapping):
            raise ObservationError('a request without an observation')
        begun = time.perf_counter()

        def look() -> Any:
            self._model.update_obs(observation)
            number = int(observation.get('env_idx') or 0)
            return self._model.get_action_batch([number])[0]

        async with self._lock:
            actions = await asyncio.to_thread(look)
        return {'actions': actions, 'latency_ms': (time.perf_counter() - begun) * 1e3}


def _error(request: Frame, code: str, message: str) -> Frame:
    return request.answer('error', {'code': code, 'message': message, 'details': {}})


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Serve what a deploy file says; returns the exit code."""
    parser = argparse.ArgumentParser(prog='python -m mivla_policy.robotwin.server')
    parser.add_argument('--config', '--config-path', dest='config', type=Path, required=True)
    parser.add_argument('--host', default='')
    parser.add_argument('--port', type=int, default=None)
    arguments = parser.parse_args(argv)
    try:
        given = read_config(arguments.config)
        port = arguments.port if arguments.port is not None else int(given.get('port') or 6000)
        settings = ServerSettings(arguments.host or str(given.get('host') or '127.0.0.1'), port)
        server = ModelServer(Model(given), settings, lambda text: print(text, flush=True))
        asyncio.run(server.run())
    except (MivlaError, OSError) as err:
        print(f'robotwin server: {err}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def read_config(path: Path) -> dict[str, Any]:
    """Return what a deploy file says; raises ConfigError."""
    given = read_yaml(path, _MAX_CONFIG, ConfigError, 'a deploy file')
    if not isinstance(given, dict):
        raise ConfigError(f'{path}: expected keys and values')
    return given


if __name__ == '__main__':
    sys.exit(main())
