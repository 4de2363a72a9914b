"""Floor 2: the only place that imports ComfyUI's own modules."""
