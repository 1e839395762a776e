"""The machine: GPUs, their driver, moments and checksums."""
