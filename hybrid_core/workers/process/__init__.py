"""A worker that is a process of its own."""
