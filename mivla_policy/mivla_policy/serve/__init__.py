"""The policy protocol and the plug-ins that implement it."""
