"""
A real browser for tests: Chromium without a window, worked through its debugging protocol.

Clicks and keys go in as input events, so what a test presses is what a hand would press.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from websockets.sync.client import connect

__all__ = ['Browser', 'Page', 'find_chromium']

_KEYS = {'Space': (' ', 32), 'Escape': ('Escape', 27), 'Enter': ('Enter', 13)}


def find_chromium() -> Optional[str]:
    """Return the browser's executable; None where there is none."""
    return next(filter(None, map(shutil.which, ('chromium', 'chromium-browser',
                                                'google-chrome'))), None)


class Browser:
    """One browser process with a profile of its own; use it as a context manager."""

    def __init__(self, width: int = 1280, height: int = 800) -> None:
        executable = find_chromium()
        assert executable is not None, 'no Chromium'
        self._folder = tempfile.TemporaryDirectory(prefix='mivla-chromium-',
                                                   ignore_cleanup_errors=True)
        words = [executable, '--headless=new', '--remote-debugging-port=0', '--no-first-run',
                 f'--user-data-dir={self._folder.name}', f'--window-size={width},{height}',
                 '--hide-scrollbars', '--mute-audio', '--disable-gpu',
                 '--disable-background-networking', '--disable-dev-shm-usage']
        if os.getuid() == 0:
            words.append('--no-sandbox')      # it refuses to run as root with one
        # On a machine of its own where it matters: here it must not take the robot's processor.
        self._process = subprocess.Popen(['nice', '-n', '10', *words, 'about:blank'],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        active = Path(self._folder.name, 'DevToolsActivePort')
        deadline = time.monotonic() + 60.0
        while not (active.is_file() and active.read_text().count('\n')):
            assert self._process.poll() is None, 'Chromium ended at once'
            assert time.monotonic() < deadline, 'Chromium does not come up'
            time.sleep(0.02)
        self._port = int(active.read_text().split()[0])
        self._size = (width, height)
        self._pages: list[Page] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        for page in self._pages:
            page.close()
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)
        self._folder.cleanup()

    def open(self, url: str) -> Page:
        """Open a page in a tab of its own."""
        request = urllib.request.Request(f'http://127.0.0.1:{self._port}/json/new?about:blank',
                                         method='PUT')
        with urllib.request.urlopen(request, timeout=10.0) as answer:
            target = json.load(answer)
        page = Page(target['webSocketDebuggerUrl'], *self._size)
        self._pages.append(page)
        page.go(url)
        return page


class Page:
    """A tab."""

    def __init__(self, address: str, width: int, height: int) -> None:
        self._socket = connect(address, max_size=None, compression=None)
        self._number = 0
        self.complaints: list[str] = []      # errors and refusals that the page reported
        for domain in ('Page', 'Runtime', 'Log'):
            self.call(f'{domain}.enable')
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size [px]."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def close(self) -> None:
        """Close the tab."""
        try:
            self.call('Page.close')
        except Exception:  # the browser may have gone first: closed is closed
            return
        finally:
            self._socket.close()

    def call(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        """Do one thing of the debugging protocol."""
        self._number += 1
        self._socket.send(json.dumps({'id': self._number, 'method': method,
                                      'params': parameters}))
        while True:
            message = json.loads(self._socket.recv(20.0))
            if message.get('id') == self._number:
                assert 'error' not in message, f'{method}: {message["error"]}'
                return message['result']
            self._note(message)

    def _note(self, message: Mapping[str, Any]) -> None:
        method, parameters = message.get('method'), message.get('params', {})
        if method == 'Runtime.exceptionThrown':
            details = parameters['exceptionDetails']
            self.complaints.append(details.get('exception', {}).get('description')
                                   or details['text'])
        elif method == 'Log.entryAdded' and parameters['entry']['level'] == 'error':
            self.complaints.append(parameters['entry']['text'])

    def go(self, url: str) -> None:
        """Load an address."""
        self.call('Page.navigate', url=url)
        self.wait('document.readyState === "complete"', f'{url} to load')

    def run(self, script: str) -> Any:
        """Evaluate JavaScript, waiting for a promise; returns its plain value."""
        result = self.call('Runtime.evaluate', expression=script, awaitPromise=True,
                           returnByValue=True)
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def wait(self, condition: str, what: str, timeout: float = 15.0) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + timeout
        while not self.run(f'Boolean({condition})'):
            assert time.monotonic() < deadline, (
                f'{what} did not come within {timeout:g} s; {self.run("location.href")} says '
                f'{self.run("document.getElementById(`notice`)?.textContent")!r}, '
                f'state {self.text("#state")!r}, complaints {self.complaints}')
            time.sleep(0.03)

    def text(self, selector: str) -> str:
        """Return the text of an element; '' without one."""
        return self.run(f'document.querySelector({json.dumps(selector)})?.textContent ?? ""')

    def click(self, selector: str) -> None:
        """Press an element with the mouse, where it is."""
        self.hold(selector)
        self.let_go()

    def hold(self, selector: str) -> None:
        """Press an element with the mouse and keep it down."""
        where = json.dumps(selector)
        self.call('Page.bringToFront')     # a tab behind another takes no clicks
        # Chromium drops what is pressed before a page that was just navigated to is painted.
        self.wait('performance.getEntriesByType("paint").length', 'the page to be painted')
        self.wait(f'(e => e && !e.disabled && e.getClientRects().length)(document.querySelector('
                  f'{where}))', f'{selector} to be there and enabled')
        x, y, hit = self.run(
            '(e => { e.scrollIntoView({block: "nearest"}); const r = e.getBoundingClientRect(); '
            'const x = r.x + r.width / 2, y = r.y + r.height / 2; '
            'return [x, y, e.contains(document.elementFromPoint(x, y))]; })'
            f'(document.querySelector({where}))')
        assert hit, f'something lies over {selector}'
        self._at = (x, y)
        for kind in ('mouseMoved', 'mousePressed'):
            self._mouse(kind)

    def let_go(self) -> None:
        """Let the mouse button go."""
        self._mouse('mouseReleased')

    def _mouse(self, kind: str) -> None:
        pressed = kind == 'mousePressed'
        self.call('Input.dispatchMouseEvent', type=kind, x=self._at[0], y=self._at[1],
                  button='none' if kind == 'mouseMoved' else 'left',
                  buttons=1 if pressed else 0, clickCount=0 if kind == 'mouseMoved' else 1)

    def key(self, code: str) -> None:
        """Press and let go a key by its code ('KeyR', 'Space')."""
        self.call('Page.bringToFront')
        key, number = _KEYS.get(code, (code.removeprefix('Key').lower(), ord(code[-1])))
        for kind in ('rawKeyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, code=code, key=key,
                      windowsVirtualKeyCode=number)

    def type(self, words: str) -> None:
        """Type into what has the focus."""
        self.call('Input.insertText', text=words)

    def picture(self, path: Path) -> None:
        """Save what is seen as a PNG."""
        answer = self.call('Page.captureScreenshot', format='png')
        path.write_bytes(base64.b64decode(answer['data']))
