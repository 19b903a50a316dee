"""Training: task files, the worker process, and the bytes of updates and checkpoints.

Two sides that never mix.
The node imports `spec`, `assignment`, `supervisor` and `demo_data`, none of which needs torch.
The worker process (`python -m swarm.training.worker`) imports the rest, and is the only importer of torch.
"""
