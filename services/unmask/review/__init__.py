"""Review: people look at cases, decide them, and let them be appealed."""
