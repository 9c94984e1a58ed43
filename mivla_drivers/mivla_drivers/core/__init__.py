"""Decisions of the driver: no ROS, no bus, no clock."""
