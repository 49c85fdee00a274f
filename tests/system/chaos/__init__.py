"""Chaos: pictures in flight while every process and server dies in turn, and a ledger of what became of them."""
