"""Rate, age and a frozen picture, with time passed in."""

import numpy as np
import pytest

from mivla_core.timing import NowNs
from mivla_drivers.cameras.health import FrameHealth, Level, picture_digest

MS = 1_000_000
T0 = NowNs(10_000_000_000)


def feed(health: FrameHealth, count: int, period_ms: float, digest=lambda i: i) -> NowNs:
    now = T0
    for i in range(count):
        now = T0 + round(i * period_ms * MS)
        health.frame(now, digest(i))
    return now


def test_no_frame_yet_is_a_warning() -> None:
    report = FrameHealth(30.0).report(T0)
    assert report.level is Level.WARN and np.isnan(report.age) and report.frames == 0


def test_a_camera_at_its_rate_is_fine() -> None:
    health = FrameHealth(30.0)
    now = feed(health, 90, 1000 / 30)
    report = health.report(now + 5 * MS)
    assert report.level is Level.OK
    assert report.rate == pytest.approx(30.0, rel=0.01)
    assert report.age == pytest.approx(0.005) and report.frames == 90


def test_slow_is_a_warning_and_silent_an_error() -> None:
    health = FrameHealth(30.0)
    now = feed(health, 30, 100)
    assert health.report(now).level is Level.WARN
    assert health.report(now + 400 * MS).level is Level.WARN
    silent = health.report(now + 600 * MS)
    assert silent.level is Level.ERROR and '0.6 s' in silent.message
    assert health.report(now + 10_000 * MS).rate == 0.0


def test_identical_for_more_than_half_a_second_is_frozen() -> None:
    health = FrameHealth(30.0)
    now = feed(health, 16, 1000 / 30, digest=lambda i: 7)
    assert health.report(now).level is not Level.ERROR    # 15 periods: exactly 0.5 s
    health.frame(now + 34 * MS, 7)
    report = health.report(now + 34 * MS)
    assert report.level is Level.ERROR and 'identical' in report.message
    health.frame(now + 67 * MS, 8)
    assert health.report(now + 67 * MS).level is Level.OK


def test_lost_tells_why_until_the_next_frame() -> None:
    health = FrameHealth(30.0)
    now = feed(health, 60, 1000 / 30)
    health.lost('unplugged')
    report = health.report(now + MS)
    assert report.level is Level.ERROR and report.message == 'unplugged'
    health.frame(now + 33 * MS, 1)
    assert health.report(now + 34 * MS).message != 'unplugged'


def test_digest_sees_a_change_of_a_sampled_pixel_and_of_any_jpeg_byte() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    before = picture_digest(picture)
    picture[8, 16, 1] = 1
    assert picture_digest(picture) != before
    assert picture_digest(b'abc') != picture_digest(b'abd')
