"""A run that tests of the atlas begin."""

from backend.atlas.records import ModelRecord, RunPlan

MODEL = ModelRecord("tiny", "Tiny", "TinyForCausalLM", 2, 8, 5, 20, "RMSNorm", "/models/tiny")


PLAN = RunPlan(MODEL, 1, "words", "c" * 64, "w" * 64, 4, 16, 0, 1, 40, {"model": "tiny"}, {"torch": "2"})
