"""Says how likely a face is wholly generated, and by which family of generators."""
