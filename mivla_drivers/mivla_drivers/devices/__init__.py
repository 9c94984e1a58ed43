"""Emulated devices: the logic of real controllers without clock, ROS or physics."""
