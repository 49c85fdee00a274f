"""What leaves Unmask or must be picked up again: the sweeper, and later the outbox relay."""
