"""
One run of a policy: asking for the robot, having it, and giving it back.

    IDLE --begin--> ENTERING --granted, mode policy--> RUNNING --end--> LEAVING --> IDLE
    IDLE --driver in mode policy--> RUNNING --driver not in it--> IDLE

Commands may be sent in RUNNING only. A run that a goal began is given back: whatever ends it, the
driver is asked for mode idle as long as it still is in mode policy, and the run ends whether it
answers or not. Where somebody else puts the driver into mode policy the runner follows: it runs
until the mode is taken away and asks for nothing. Pure: events and instants come in, and every
event returns what the node has to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Optional

from mivla_core.timing import NowNs

__all__ = ['Do', 'DriverView', 'Outcome', 'Phase', 'Session', 'SessionLimits']


class Phase(Enum):
    """Where a run stands."""

    IDLE = 'idle'
    ENTERING = 'entering'
    RUNNING = 'running'
    LEAVING = 'leaving'


class Do(Enum):
    """What an event asks of the node."""

    NOTHING = 'nothing'
    ASK_POLICY = 'ask the driver for mode policy'
    ASK_IDLE = 'ask the driver for mode idle'
    FINISH = 'finish the goal'


class Outcome(IntEnum):
    """How a run ended; the values of mivla_msgs/RunPolicy."""

    DONE = 0
    CANCELLED = 1
    STOPPED = 2
    FAILED = 3


@dataclass(frozen=True)
class DriverView:
    """
    What is known of the driver.

    :param willing: it is HOLDING or MOVING.
    :param policy_mode: its mode is policy.
    :param words: its state, mode and detail, for messages.
    """

    willing: bool
    policy_mode: bool
    words: str


@dataclass(frozen=True)
class SessionLimits:
    """
    How long a run waits [ns].

    :param handshake: for the driver to change its mode.
    :param driver_silence: for the next state of the driver, which sends one every second.
    :param starvation: for set-points while running.
    """

    handshake: int = 3_000_000_000
    driver_silence: int = 3_500_000_000
    starvation: int = 10_000_000_000


class Session:
    """State machine of one runner; one run at a time."""

    def __init__(self, limits: SessionLimits) -> None:
        """Begin idle, with a driver that nothing is known of."""
        self.limits = limits
        self.phase = Phase.IDLE
        self.outcome = Outcome.DONE
        self.message = ''
        self.began: Optional[NowNs] = None
        self.following = False
        self._timeout_ns = 0
        self._since: Optional[NowNs] = None
        self._fed: Optional[NowNs] = None
        self._granted = False
        self._driver: Optional[DriverView] = None
        self._heard: Optional[NowNs] = None

    @property
    def running(self) -> bool:
        """Whether commands may be sent."""
        return self.phase is Phase.RUNNING

    def elapsed_ns(self, now: NowNs) -> int:
        """Return ns since the run began; 0 when there is none."""
        return 0 if self.began is None or self.phase is Phase.IDLE else now - self.began

    def begin(self, now: NowNs, timeout_ns: int) -> Do:
        """Begin a run of at most ``timeout_ns``; only without another goal's run."""
        assert self.phase is Phase.IDLE or self.following
        self._enter(Phase.ENTERING, now)
        self.following = False
        self.began, self._timeout_ns, self._granted = now, timeout_ns, False
        self.outcome, self.message = Outcome.DONE, ''
        return Do.ASK_POLICY

    def mode_answer(self, asked: Do, ok: bool, message: str, now: NowNs) -> Do:
        """
        Take the driver's answer to a request for a mode.

        :param asked: ASK_POLICY or ASK_IDLE; an answer to what is no longer asked is ignored.
        """
        if self.phase is Phase.LEAVING and asked is Do.ASK_IDLE:
            if not ok:
                self.message += f'; the driver did not go idle: {message}'
            return self._finish()
        if self.phase is not Phase.ENTERING or asked is not Do.ASK_POLICY:
            return Do.NOTHING
        if not ok:
            self.outcome, self.message = Outcome.FAILED, f'the driver refused: {message}'
            return self._finish()
        self._granted = True
        return self._maybe_run(now)

    def driver(self, view: DriverView, now: NowNs) -> Do:
        """Take a state of the driver."""
        self._driver, self._heard = view, now
        if self.phase is Phase.ENTERING:
            return self._maybe_run(now)
        ours = view.willing and view.policy_mode
        if self.phase is Phase.RUNNING and not ours:
            return self._leave(Outcome.STOPPED, f'the driver is {view.words}', now)
        if self.phase is Phase.IDLE and ours:
            self._enter(Phase.RUNNING, now)
            self.began, self.following, self._fed = now, True, None
        return Do.NOTHING

    def cancel(self, reason: str, now: NowNs) -> Do:
        """End the run because somebody asked for it."""
        if self.phase not in (Phase.ENTERING, Phase.RUNNING):
            return Do.NOTHING
        return self._leave(Outcome.CANCELLED, reason, now)

    def fail(self, reason: str, now: NowNs) -> Do:
        """End the run of a goal because it cannot succeed; a followed mode stays."""
        if self.phase not in (Phase.ENTERING, Phase.RUNNING) or self.following:
            return Do.NOTHING
        return self._leave(Outcome.FAILED, reason, now)

    def fed(self, now: NowNs) -> None:
        """Note that there are set-points to send."""
        self._fed = now

    def tick(self, now: NowNs, lacking: str) -> Do:
        """
        Look at the clock.

        :param lacking: why there are no set-points, for the message.
        """
        if self.phase is Phase.IDLE or self._since is None or self.began is None:
            return Do.NOTHING
        waited = now - self._since
        if self.phase is Phase.LEAVING:
            if waited <= self.limits.handshake:
                return Do.NOTHING
            self.message += '; the driver did not answer when it was given back'
            return self._finish()
        if self.phase is Phase.ENTERING:
            if waited <= self.limits.handshake:
                return Do.NOTHING
            missing = 'enter mode policy' if self._granted else 'answer'
            return self._leave(Outcome.FAILED, f'the driver did not {missing} within '
                                               f'{self.limits.handshake * 1e-9:.1f} s', now)
        assert self._heard is not None
        if now - self._heard > self.limits.driver_silence:
            return self._leave(Outcome.STOPPED, 'nothing heard of the driver for '
                                                f'{(now - self._heard) * 1e-9:.1f} s', now)
        if self.following:
            return Do.NOTHING
        if now - self.began >= self._timeout_ns:
            return self._leave(Outcome.DONE, 'the time is over', now)
        last = self._since if self._fed is None else max(self._fed, self._since)
        if now - last > self.limits.starvation:
            return self._leave(Outcome.FAILED, f'no actions for {(now - last) * 1e-9:.1f} s: '
                                               f'{lacking}', now)
        return Do.NOTHING

    def _maybe_run(self, now: NowNs) -> Do:
        if self._granted and self._driver is not None and self._driver.policy_mode:
            self._enter(Phase.RUNNING, now)
            self._fed = None
            return self.driver(self._driver, now)
        return Do.NOTHING

    def _enter(self, phase: Phase, now: NowNs) -> None:
        self.phase, self._since = phase, now

    def _leave(self, outcome: Outcome, message: str, now: NowNs) -> Do:
        self.outcome, self.message = outcome, message
        # Still asked for policy: the answer may be under way, so idle is asked for all the same.
        if not self.following and (self.phase is Phase.ENTERING or (
                self._driver is not None and self._driver.policy_mode)):
            self._enter(Phase.LEAVING, now)
            return Do.ASK_IDLE
        return self._finish()

    def _finish(self) -> Do:
        self.phase, self.following = Phase.IDLE, False
        return Do.FINISH
