"""What conditioning and model hold about places in the picture, as one tile has to see it.

``crop_conditioning`` makes a tile's own view of a conditioning, ``cropped_model`` that of a model with image hints.

Source: fact 15 of the reference (ssitu/ComfyUI_UltimateSDUpscale 1.7.1), and the host's own code for how each thing is
stored. With ``place.parity`` the arithmetic is the reference's; differences without it are named where they are made:

    area, GLIGEN     rescaled to the processing size; what lies outside of a tile is left out instead of becoming global
    several crops    everything is cropped for each of them, not for the first alone; see `needs_single_crops`
    inpaint latents  ``concat_latent_image`` and masks for a control are cropped as well
    frames           a chunk of the frames sees the rows that belong to it (in parity too: the reference has no chunks)

Nothing given is ever changed: entries, dicts, controls, patches and the model are copied as far as they differ.
"""

from .entries import Conditioning, crop_conditioning, needs_single_crops
from .patches import cropped_model

__all__ = ["Conditioning", "crop_conditioning", "cropped_model", "needs_single_crops"]
