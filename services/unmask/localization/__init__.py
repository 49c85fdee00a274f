"""Says where a face was manipulated."""
