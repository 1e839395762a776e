"""Messages and tensors between two processes."""
