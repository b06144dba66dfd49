"""A trial of messages from device memory, in processes of its own."""
