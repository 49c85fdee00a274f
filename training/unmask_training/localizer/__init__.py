"""The localizer: network, samples, fit, figures, export."""
