"""Generated from proto/unmask/v1 by `make proto`; not edited."""
