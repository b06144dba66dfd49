"""The worker for torch models, and how their optimizers are fused."""
