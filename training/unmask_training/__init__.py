"""Trains, evaluates and exports the models of Unmask."""
