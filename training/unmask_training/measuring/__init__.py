"""Figures, calibration and their reports."""
