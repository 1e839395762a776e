"""ComfyUI: its samplers, models and conditioning."""
