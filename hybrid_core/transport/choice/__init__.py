"""Which kind of shared memory is used, found by trying."""
