"""What computes a network's outputs in bulk: torch, OpenVINO, ONNX Runtime, behind one interface (`base`).

`choice` decides which one a step's worker uses, on the step's own texts; the others here know nothing of tasks.
"""
