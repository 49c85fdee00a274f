"""The detector: network, fit, figures, export."""
