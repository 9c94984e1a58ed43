"""A PiPER on a bench without hardware: emulated device, trivial plant, simulated time."""

from __future__ import annotations

from typing import Any, Optional

import can
import numpy as np

from mivla_core.profile import RobotProfile, load_profile
from mivla_core.timing import NowNs
from mivla_drivers.backends.piper import PiperBackend
from mivla_drivers.can.memory import MemoryBus
from mivla_drivers.codec import piper as codec
from mivla_drivers.devices.piper_device import EmulatedPiper, PiperOptions

STEP_NS = 1_000_000
EPOCH_S = 1_700_000_000.0
POSE = np.array([0.1, 0.6, -0.7, 0.2, 0.3, -0.1, 0.03])


class LagPlant:
    """Follows its target at up to 6 rad/s while powered; without power it sags at 1 rad/s."""

    def __init__(self, q: np.ndarray = POSE) -> None:
        self.q = q.copy()
        self.v = np.zeros(7)
        self.tau = np.zeros(7)
        self.target = q.copy()
        self.mask = np.zeros(7, dtype=bool)
        self.mode = 'off'
        self.sag = 1.0

    def position(self) -> np.ndarray:
        return self.q.copy()

    def velocity(self) -> np.ndarray:
        return self.v.copy()

    def effort(self) -> np.ndarray:
        return self.tau.copy()

    def set_target(self, q: np.ndarray) -> None:
        self.target = q.copy()

    def set_enabled(self, mask: Any) -> None:
        self.mask = np.array(mask, dtype=bool)

    def set_mode(self, mode: str) -> None:
        self.mode = mode

    def step(self, dt: float) -> None:
        before = self.q.copy()
        if self.mode == 'position':
            move = np.clip(self.target - self.q, -6.0 * dt, 6.0 * dt)
            self.q += np.where(self.mask, move, 0.0)
        limp = self.mode == 'off' or self.mode == 'position' and not self.mask[1]
        fall = self.sag * (1.0 if limp else 0.1 if self.mode == 'damped_descent' else 0.0)
        self.q[1] = max(self.q[1] - fall * dt, min(self.q[1], 0.0))
        self.v = (self.q - before) / dt


class Bench:
    """Backend and device on one bus; time passes only by ``advance``."""

    def __init__(self, options: Optional[PiperOptions] = None,
                 profile: Optional[RobotProfile] = None,
                 parameters: Optional[dict[str, Any]] = None, q: np.ndarray = POSE) -> None:
        self.now = NowNs(5_000_000_000)
        self.plant = LagPlant(q)
        self.device = EmulatedPiper(self.plant, options or PiperOptions(), self.now)
        self.sent: list[tuple[int, bytes]] = []
        self.mute: set[int] = set()          # ids of the device that never arrive
        self.deaf = False                    # nothing the host sends arrives
        self.bus = MemoryBus(self._deliver, self._wait)
        self.profile = profile or load_profile('piper')
        self.backend = PiperBackend(
            self.profile, 'memory', 'bench', parameters or {},
            bus_factory=lambda interface, channel: self._reopen(),
            clock=lambda: int(self.now))

    def _reopen(self) -> can.BusABC:
        self.bus = MemoryBus(self._deliver, self._wait)
        return self.bus

    def _deliver(self, can_id: int, data: bytes) -> None:
        self.sent.append((can_id, data))
        if not self.deaf:
            self.device.handle(can_id, data, self.now)

    def _wait(self, timeout: float) -> None:
        for _ in range(max(1, round(timeout * 1e9) // STEP_NS)):
            if self.advance(STEP_NS):
                return

    def advance(self, duration_ns: int) -> int:
        """Let time pass; returns how many frames the device sent."""
        count = 0
        for _ in range(max(1, duration_ns // STEP_NS)):
            self.now = self.now + STEP_NS
            self.plant.step(STEP_NS * 1e-9)
            for can_id, data in self.device.tick(self.now):
                if can_id not in self.mute:
                    self.bus.push(can_id, data, EPOCH_S + int(self.now) * 1e-9)
                    count += 1
        return count

    def control(self, seconds: float, target: Optional[np.ndarray] = None) -> Any:
        """Run the 200 Hz loop: read, then enable or write; returns the last measurement."""
        measurement = None
        for _ in range(round(seconds * 200)):
            self.advance(5_000_000)
            measurement = self.backend.read(self.now)
            if target is not None:
                self.backend.write(target, self.now)
        return measurement

    def enable(self, seconds: float = 11.0) -> bool:
        """Call enable at 200 Hz until it is done."""
        for _ in range(round(seconds * 200)):
            self.advance(5_000_000)
            self.backend.read(self.now)
            if self.backend.enable(self.now):
                return True
        return False

    def ready(self) -> None:
        """Connect and enable."""
        self.backend.connect(self.now)
        assert self.enable()

    def sent_frames(self, kind: type) -> list[Any]:
        """Decode what the host sent, of one kind."""
        frames = (codec.decode(can_id, data) for can_id, data in self.sent)
        return [frame for frame in frames if type(frame) is kind]
