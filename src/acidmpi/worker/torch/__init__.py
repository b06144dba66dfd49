"""The worker for torch models."""

from acidmpi.worker.torch.worker import Worker as Worker
