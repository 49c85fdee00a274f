"""Real servers on loopback for development and tests; never for production."""
