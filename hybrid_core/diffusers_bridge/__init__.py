"""diffusers: its pipelines and networks."""
