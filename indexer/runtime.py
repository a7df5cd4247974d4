"""ONNX Runtime, told to report nothing: the one place that imports it.

From 1.29 on its official wheels send events about sessions, models and errors to their vendor and keep a device id in
the user's cache folder, beginning with the import. What a service that searches faces does is its operator's business.
"""

import os

# Read when the library is loaded, so it must be set before.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

# Somebody else may have imported it first.
onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
