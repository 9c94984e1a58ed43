"""Forward kinematics against the vendor SDK's numbers, and the URDF against the kinematics."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mivla_core.kinematics import Chain
from mivla_core.profile import load_profile
from mivla_core.urdf import to_urdf

# Flange positions [m] computed by the vendor SDK with dh_is_offset=1.
GOLDEN = [
    ((0, 0, 0, 0, 0, 0), (0.056128, 0.0, 0.213266)),
    ((0.1, 0.5, -0.6, 0.2, 0.3, -0.4), (0.102211, 0.015625, 0.350822)),
]


@pytest.fixture(scope='module')
def profile():
    return load_profile('piper')


@pytest.fixture(scope='module')
def chain(profile):
    return Chain(profile.kinematics)


@pytest.mark.parametrize('q, flange', GOLDEN)
def test_flange_equals_the_vendor_sdk(chain, q, flange):
    np.testing.assert_allclose(chain.frames(np.array(q))[-1][:3, 3], flange, atol=1e-6)


def test_jacobian_equals_finite_differences(chain, profile):
    q = profile.home[:6]
    jacobian = chain.jacobian(q)
    for k in range(6):
        step = np.zeros(6)
        step[k] = 1e-6
        numeric = (chain.tip(q + step)[:3, 3] - chain.tip(q - step)[:3, 3]) / 2e-6
        np.testing.assert_allclose(jacobian[:3, k], numeric, atol=1e-7)


def _transform(element):
    x, y, z = (float(v) for v in element.get('xyz').split())
    r, p, w = (float(v) for v in element.get('rpy').split())
    rx = np.array([[1, 0, 0], [0, math.cos(r), -math.sin(r)], [0, math.sin(r), math.cos(r)]])
    ry = np.array([[math.cos(p), 0, math.sin(p)], [0, 1, 0], [-math.sin(p), 0, math.cos(p)]])
    rz = np.array([[math.cos(w), -math.sin(w), 0], [math.sin(w), math.cos(w), 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3] = rz @ ry @ rx
    out[:3, 3] = x, y, z
    return out


def test_urdf_and_chain_are_the_same_robot(profile, chain):
    root = ET.fromstring(to_urdf(profile))
    joints = {joint.get('name'): joint for joint in root.findall('joint')}
    q = np.array([0.3, 0.9, -1.2, 0.4, -0.5, 0.6])
    pose = np.eye(4)
    for name, angle in zip(profile.joint_names, q):
        turn = np.eye(4)
        turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        pose = pose @ _transform(joints[name].find('origin')) @ turn
    np.testing.assert_allclose(pose, chain.frames(q)[-1], atol=1e-7)


def test_urdf_carries_the_limits_and_one_tree(profile):
    root = ET.fromstring(to_urdf(profile))
    limits = {joint.get('name'): joint.find('limit') for joint in root.findall('joint')}
    for joint in profile.joints:
        assert float(limits[joint.name].get('lower')) == pytest.approx(joint.lower, abs=1e-4)
        assert float(limits[joint.name].get('upper')) == pytest.approx(joint.upper, abs=1e-4)
    children = [joint.find('child').get('link') for joint in root.findall('joint')]
    links = [link.get('name') for link in root.findall('link')]
    assert sorted([*children, 'base_link']) == sorted(links)
