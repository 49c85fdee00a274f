"""Tests: unit (mirrors the package), contract (one suite a port), system (real processes), training."""
