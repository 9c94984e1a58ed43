"""The nodes of the policy package; the only modules here that import rclpy, and never torch."""
