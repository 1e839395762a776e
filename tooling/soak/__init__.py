"""A real server under random prompts and random harm: `python dev.py soak`."""
