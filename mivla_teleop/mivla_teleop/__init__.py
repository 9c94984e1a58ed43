"""Teleoperation, the episode recorder and the episode store."""
