"""Cameras of a rig: sources behind one protocol, the threads that read them, their health."""
