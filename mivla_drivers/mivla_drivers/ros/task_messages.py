"""Ground truth of a task as messages."""

from __future__ import annotations

from geometry_msgs.msg import Pose, PoseArray

from mivla_drivers.sim.runtime import WorldReport
from mivla_msgs.msg import SimState

__all__ = ['fill_state', 'places_of']


def fill_state(message: SimState, report: WorldReport) -> None:
    """Write what is known of a task into a message; stamp and frame are left as they are."""
    message.task, message.seed, message.level = report.task, report.seed, report.level
    message.target.x, message.target.y, message.target.z = report.state.target
    message.progress, message.success = report.state.progress, report.state.success
    message.score, message.stage = report.state.score, report.state.stage
    message.success_seconds, message.episode = report.success_seconds, report.episode


def places_of(message: SimState, report: WorldReport) -> PoseArray:
    """Return the poses that an expert plans from, with the stamp of a state."""
    places = PoseArray(header=message.header)
    for x, y, z, qw, qx, qy, qz in report.places.tolist():
        pose = Pose()
        pose.position.x, pose.position.y, pose.position.z = x, y, z
        pose.orientation.w, pose.orientation.x = qw, qx
        pose.orientation.y, pose.orientation.z = qy, qz
        places.poses.append(pose)
    return places
