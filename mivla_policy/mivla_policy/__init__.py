"""MiVLA policies: the model, its checkpoints, the policy server and runner, and learning."""
