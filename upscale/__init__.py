"""Upscaling by tiles: geometry, order and dependencies, the canvas, conditioning of a tile, one tile's sampling."""
