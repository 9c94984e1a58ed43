"""CAN transports of this suite."""
