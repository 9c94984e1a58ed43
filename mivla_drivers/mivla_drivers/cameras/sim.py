"""
The simulated cameras of a rig, rendered from the shared state of the world.

One graphics context serves all cameras, so they form one lane. Every round takes one snapshot of
the world and renders it once per camera: all pictures of a round carry the stamp of that state,
which lies before the rendering.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Optional

from mivla_core.robot_parts import Camera
from mivla_core.timing import StampNs
from mivla_drivers.cameras.pace import Pace
from mivla_drivers.cameras.source import CameraError, CameraSource, Frame, Pinhole, SourceContext
from mivla_drivers.sim.render import CameraRenderer, intrinsics
from mivla_drivers.sim.state_block import (
    Snapshot,
    StateBlockError,
    StateReader,
    block_path,
    task_in,
)
from mivla_drivers.sim.tasks import TASKS

__all__ = ['SimCamera', 'SimRig', 'sim_lanes']

WORLD_TIMEOUT_S = 1.0
START_TIMEOUT_S = 15.0
POLL_S = 0.0005
FRESH_STATE_NS = 1_000_000
FRESH_STATE_WAIT_S = 0.01


class SimRig:
    """
    Renderer and state reader that the cameras of a rig share; used in one thread.

    :param cameras: of one rate.
    """

    def __init__(self, cameras: Sequence[Camera], context: SourceContext) -> None:
        self.context = context
        self._sizes = {camera.role: (camera.width, camera.height) for camera in cameras}
        self._fps = cameras[0].fps
        self._path = block_path(context.domain, context.robot)
        self._renderer: Optional[CameraRenderer] = None
        self._reader: Optional[StateReader] = None
        self._snapshot: Optional[Snapshot] = None
        self._taken: set[str] = set()
        self._number = 0
        self._task = ''

    @property
    def device(self) -> str:
        """The file of the world's state."""
        return str(self._path)

    def open(self) -> None:
        """Make the renderer and map the state; does nothing when both are there."""
        if self._reader is not None:
            return
        # World and cameras start together; the world may still be compiling its scene.
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._make_renderer(task_in(self._path))
                assert self._renderer is not None
                self._reader = StateReader(self._path, scene_id=self._renderer.scene_id,
                                           positions=self._renderer.model.nq)
                self._reader.read()
                break
            except StateBlockError as err:
                self._drop_reader()
                if time.monotonic() > deadline:
                    raise CameraError(f'camera {", ".join(self._sizes)}: {err}') from err
                time.sleep(0.05)
        self._pace = Pace(self._fps)
        self._snapshot = None

    def _make_renderer(self, task: str) -> None:
        """Compile the scene of a world's task, unless that is the one that is there."""
        if self._renderer is not None and self._task == task:
            return
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        # A robot on legs has the one scene, whatever its world calls it.
        drawn = {'task': task} if task in TASKS else {}
        self._renderer = CameraRenderer(self.context.profile, self._sizes, **drawn)
        self._task = task

    def picture(self, role: str) -> Frame:
        """
        Return the picture of this round; a role that was taken already begins the next round.

        :raises CameraError: the world has ended or stands still.
        """
        if self._snapshot is None or role in self._taken:
            self._begin_round()
        assert self._renderer is not None and self._snapshot is not None
        self._taken.add(role)
        picture = self._renderer.render(role, self._number)
        return Frame(self._snapshot.stamp, 'rgb8', picture)

    def close(self) -> None:
        """Free everything; idempotent."""
        self._drop_reader()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _begin_round(self) -> None:
        if self._renderer is None:
            raise CameraError(f'camera {", ".join(self._sizes)}: not open')
        self._pace.wait()
        last = self._snapshot
        snapshot = self._fresh(None if last is None else last.stamp)
        # Noise counts from the reset of a scene, so that an episode's pictures can be repeated.
        fresh = last is None or last.generation != snapshot.generation
        self._number = 0 if fresh else self._number + 1
        self._renderer.place(snapshot)
        self._snapshot = snapshot
        self._taken = set()

    def _fresh(self, last: Optional[StampNs]) -> Snapshot:
        """
        Return a state newer than ``last``, best one that was written just now.

        The world writes at its own rate: a picture of its newest state may be almost a period
        old before it is begun, so the next state is waited for.
        """
        snapshot = self._newer_than(last, WORLD_TIMEOUT_S)
        assert snapshot is not None
        if StampNs.wall() - snapshot.stamp < FRESH_STATE_NS:
            return snapshot
        return self._newer_than(snapshot.stamp, FRESH_STATE_WAIT_S) or snapshot

    def _newer_than(self, stamp: Optional[StampNs], wait_s: float) -> Optional[Snapshot]:
        """Return a state newer than ``stamp``, or None after a wait shorter than a stall."""
        assert self._reader is not None
        deadline = time.monotonic() + wait_s
        while True:
            try:
                snapshot = self._reader.read()
            except StateBlockError as err:
                raise CameraError(f'camera {", ".join(self._sizes)}: {err}') from err
            if stamp is None or snapshot.stamp > stamp:
                return snapshot
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        if wait_s < WORLD_TIMEOUT_S:
            return None
        raise CameraError(f'camera {", ".join(self._sizes)}: the simulated world has stood still '
                          f'for {WORLD_TIMEOUT_S:g} s ({self._path})')

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class SimCamera:
    """One camera of a simulated rig; see ``CameraSource``."""

    def __init__(self, camera: Camera, rig: SimRig) -> None:
        self.camera = camera
        self._rig = rig

    @property
    def device(self) -> str:
        """The file of the world's state."""
        return self._rig.device

    def open(self) -> None:
        """Open the rig."""
        self._rig.open()

    def grab(self) -> Frame:
        """Return the picture of this round."""
        return self._rig.picture(self.camera.role)

    def intrinsics(self) -> Optional[Pinhole]:
        """Return the exact intrinsics of the renderer."""
        known = intrinsics(self._rig.context.profile, self.camera.role, self.camera.width,
                           self.camera.height)
        return Pinhole(known.fx, known.fy, known.cx, known.cy)

    def close(self) -> None:
        """Close the rig."""
        self._rig.close()


def sim_lanes(cameras: Sequence[Camera],
              context: SourceContext) -> list[tuple[CameraSource, ...]]:
    """Make one lane per frame rate; entry point ``sim`` of ``mivla.cameras``."""
    lanes: list[tuple[CameraSource, ...]] = []
    for fps in dict.fromkeys(camera.fps for camera in cameras):
        members = [camera for camera in cameras if camera.fps == fps]
        rig = SimRig(members, context)
        lanes.append(tuple(SimCamera(camera, rig) for camera in members))
    return lanes
