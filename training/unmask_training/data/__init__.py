"""Corpora as prepared chips, and what training sees of them."""
