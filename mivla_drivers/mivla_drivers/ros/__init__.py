"""The nodes of the driver package; the only modules here that import rclpy."""
