"""What the policy decides: numpy only; no ROS, no torch and no clock in here."""
