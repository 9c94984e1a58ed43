"""The simulated cameras on a world that is only a writer of states."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mivla_core.profile import load_profile
from mivla_core.robot_parts import Camera
from mivla_core.timing import StampNs
from mivla_drivers.cameras import sim
from mivla_drivers.cameras.sim import SimCamera, SimRig
from mivla_drivers.cameras.source import CameraError, SourceContext
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.render import CameraRenderer
from mivla_drivers.sim.scene import build_model, scene_id
from mivla_drivers.sim.state_block import Snapshot, StateWriter

PROFILE = load_profile('piper')
ROLES = [camera.role for camera in PROFILE.cameras]
CAMERAS = [Camera(role=role, width=64, height=48, fps=50.0, source='sim') for role in ROLES]


class World:
    """Writes the state of a scene at 200 Hz."""

    def __init__(self, path: Path) -> None:
        model = build_model(PROFILE)
        self.qpos = model.qpos0.copy()
        self.generation = 0
        self.writer = StateWriter(path, scene_id=scene_id(PROFILE), positions=model.nq)
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def write(self) -> None:
        self.writer.write(Snapshot(StampNs.wall(), self.generation, 'click_bell', 300_000, 'hard',
                                   self.qpos))

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.write()

    def pause(self) -> None:
        self._stop.set()
        self.thread.join()

    def close(self) -> None:
        self._stop.set()
        if self.thread.ident is not None:
            self.thread.join()
        self.writer.close()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    try:
        CameraRenderer(PROFILE, {ROLES[0]: (64, 48)}).close()
    except SimError as err:
        pytest.skip(str(err))
    path = tmp_path / 'state'
    monkeypatch.setattr(sim, 'block_path', lambda domain, robot: path)
    monkeypatch.setattr(sim, 'START_TIMEOUT_S', 0.2)
    monkeypatch.setattr(sim, 'WORLD_TIMEOUT_S', 0.2)
    world = World(path)
    yield world
    world.close()


@pytest.fixture
def cameras(world: World) -> Iterator[list[SimCamera]]:
    rig = SimRig(CAMERAS, SourceContext(PROFILE, 'piper', 7))
    cameras = [SimCamera(camera, rig) for camera in CAMERAS]
    yield cameras
    for camera in cameras:
        camera.close()


def test_a_round_is_one_state_seen_by_every_camera(world: World, cameras: list) -> None:
    world.thread.start()
    for camera in cameras:
        camera.open()
    rounds = [[camera.grab() for camera in cameras] for _ in range(10)]
    for frames in rounds:
        assert len({frame.stamp for frame in frames}) == 1
        assert all(f.encoding == 'rgb8' and f.data.shape == (48, 64, 3) for f in frames)
    stamps = [int(frames[0].stamp) for frames in rounds]
    assert np.mean(np.diff(stamps)) == pytest.approx(20e6, rel=0.25)
    assert StampNs.wall() - rounds[-1][0].stamp < 200_000_000
    assert (rounds[0][0].data != rounds[0][1].data).any()
    # Sensor noise: successive pictures of a scene at rest differ.
    assert (rounds[0][0].data != rounds[1][0].data).any()
    known = cameras[0].intrinsics()
    assert known is not None and known.fx > 0 and known.cx == 31.5


def test_noise_counts_from_the_reset_of_the_scene(world: World, cameras: list) -> None:
    world.thread.start()
    cameras[0].open()
    first = cameras[0].grab().data
    cameras[0].grab()
    world.generation += 1
    time.sleep(0.03)
    np.testing.assert_array_equal(cameras[0].grab().data, first)


def test_without_a_world_it_says_so(world: World, cameras: list) -> None:
    with pytest.raises(CameraError, match='camera head.*has not written a state'):
        cameras[0].open()


def test_a_world_that_stands_still_or_ends_is_lost(world: World, cameras: list) -> None:
    world.thread.start()
    cameras[0].open()
    cameras[0].grab()
    world.pause()
    with pytest.raises(CameraError, match='stood still'):
        for _ in range(3):
            cameras[0].grab()
    world.writer.close()
    with pytest.raises(CameraError, match='ended'):
        cameras[0].grab()
