"""Training of demo models that draw emoji: see README.md in this folder."""
