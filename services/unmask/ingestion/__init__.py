"""Takes pictures in: checks the bytes, names them, reads what they say of their origin."""
