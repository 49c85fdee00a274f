"""Experiments on what a detector does beyond its training: train x test matrix, leave-one-out, adaptation curves."""
