"""A network in parts."""
