"""Node helpers shared by every package: lifecycle base, parameters, named QoS."""
