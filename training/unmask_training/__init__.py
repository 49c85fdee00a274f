"""Trains, evaluates and exports the models of Unmask."""

import os

# Read when ONNX Runtime is loaded: official builds report to their maker otherwise, and leave a device id in HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
