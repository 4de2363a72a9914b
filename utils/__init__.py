"""Floor 1: what every room may use and what knows nothing of ComfyUI or of Flotilla's work."""
