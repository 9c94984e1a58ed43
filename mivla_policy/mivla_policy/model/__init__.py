"""The MiVLA network, its configuration and its checkpoints (torch)."""
