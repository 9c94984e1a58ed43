"""Hardware backends; each implements ``mivla_drivers.core.port.ArmBackend``."""
