"""What leaves Unmask or must be picked up again: the outbox relay and the sweeper."""
