"""The domain: types, rules and arithmetic of Unmask, without I/O and without any framework."""
