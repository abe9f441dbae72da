"""Neurons that a person keeps at hand."""

STORE = "pins"
"""The id of the browser's store of pins: `{model: ["29.830", ...]}`."""
