"""Few-shot adaptation: a new generator is learned from a handful of pictures, behind a gate."""
