"""Other devices that evaluate beside this process."""
