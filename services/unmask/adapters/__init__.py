"""What stands behind the ports: one module for each real thing, given plain values, never settings."""
