"""The ROS nodes of this package: messages, lifecycle, timers."""
