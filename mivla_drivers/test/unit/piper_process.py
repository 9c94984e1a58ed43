"""An emulated PiPER in a process of its own, on the loopback bus, until stdin closes."""

from __future__ import annotations

import select
import sys
import time

from piper_rig import LagPlant

from mivla_core.timing import monotonic_now
from mivla_drivers.can.loopback import LoopbackBus
from mivla_drivers.devices.piper_device import EmulatedPiper, PiperOptions


def main(channel: str, firmware: str) -> None:
    """Run the device at 500 Hz; ROS_DOMAIN_ID keeps the bus apart."""
    with LoopbackBus(channel) as bus:
        plant = LagPlant()
        last = monotonic_now()
        device = EmulatedPiper(plant, PiperOptions(firmware=firmware), last)
        print('ready', flush=True)
        while not select.select([sys.stdin], [], [], 0.0)[0]:
            now = monotonic_now()
            while (message := bus.recv(0.0)) is not None:
                device.handle(message.arbitration_id, bytes(message.data), now)
            plant.step(max(now - last, 1) * 1e-9)
            last = now
            frames = device.tick(now)
            if frames:
                bus.send_many(frames)
            time.sleep(0.002)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2])
