"""
The gripper of an ARX-5 against something that does not yield.

Its motor has no current limit of its own below the over-torque at which the arm must be stopped.
So, as the vendor's controller does, a set-point that would press harder is not sent, and one that
was kept back is approached slowly once the press gives way: in one step it would strike with all
that the commands have gone on meanwhile.
"""

from __future__ import annotations

__all__ = ['GRIP_TORQUE', 'Grip']

GRIP_TORQUE = 0.75      # N·m at which the gripper is not closed or opened further (arx5-sdk)


class Grip:
    """
    What is sent to the gripper [m of opening].

    :param period: of the set-points [s].
    :param speed: at which it goes on pressing after it was kept back [m/s].
    """

    def __init__(self, period: float, speed: float) -> None:
        self._step = speed * period
        self._side = 0.0        # in which it was kept back: -1 closing, 1 opening, 0 not

    def forget(self) -> None:
        """Begin anew: torque has just come on."""
        self._side = 0.0

    def limit(self, wanted: float, sent: float, press: float) -> float:
        """
        Return what to send.

        :param wanted: set-point.
        :param sent: the last one.
        :param press: torque of its motor, positive where it presses outwards [N·m].
        """
        step = wanted - sent
        if abs(press) > GRIP_TORQUE and press * step > 0.0:
            self._side = 1.0 if press > 0.0 else -1.0
            return sent
        if step * self._side <= self._step:
            self._side = 0.0    # caught up, or let go: that is not slowed down
            return wanted
        return sent + self._side * self._step
