"""Finds faces and their landmarks."""
