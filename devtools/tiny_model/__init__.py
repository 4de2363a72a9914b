"""A tiny text-free picture model that ComfyUI's own loaders accept: what it draws, its training, its weights."""
