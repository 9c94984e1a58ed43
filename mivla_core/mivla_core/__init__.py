"""Shared nouns of the MiVLA deployment suite: profile, time, kinematics, images, errors."""
