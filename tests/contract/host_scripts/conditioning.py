"""Run by `servers.on_host`: conditionings and model patches made by the host's own nodes, cropped, and used by the host.

Reported are what the host's models were given, next to what they should have been.
"""

from __future__ import annotations

from typing import Any

import comfy.controlnet
import comfy.gligen
import comfy.model_patcher
import comfy.samplers
import torch
from comfy_extras import nodes_edit_model, nodes_model_patch
from fakes.conditioning import FakeControl, FakePatch, noise, place
from flotilla.upscale.conditioning import crop_conditioning, cropped_model
from flotilla.upscale.conditioning.regions import crop_hint
from servers.on_host import report

import nodes

CANVAS = (256, 192)
SOURCE = (128, 96)
CROPS = (0, 0, 96, 96), (96, 64, 192, 160)
TEXT = noise(1, 77, 8)
CPU = torch.device("cpu")


class SpyNetwork(torch.nn.Module):
    """A ControlNet's or a DiffSynth's network that keeps what it is given."""

    dtype = torch.float32
    additional_in_dim = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.hints: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, hint: torch.Tensor, **_: Any) -> dict[str, list[Any]]:
        self.hints.append(hint)
        return {"input": [], "middle": [], "output": [torch.zeros_like(x)]}

    def process_input_latent_image(self, latent: torch.Tensor) -> torch.Tensor:
        return latent.flatten(1)[..., None]

    def control_block(self, img: torch.Tensor, hint: torch.Tensor, _block: int) -> torch.Tensor:
        self.hints.append(hint)
        return img * 0 + hint


class SpyVae:
    """Every 8th pixel; counts how often it is asked."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        self.encoded += 1
        return pixels.movedim(-1, 1)[..., ::8, ::8]

    def spacial_compression_encode(self) -> int:
        return 8


class Sampling:
    """As much of a model_sampling as a ControlNet asks for."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        return sigma

    def calculate_input(self, _sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x


class Denoiser(torch.nn.Module):
    """As much of a model as a control's ``pre_run`` asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.model_sampling = Sampling()


def wrapped(network: torch.nn.Module) -> Any:
    return comfy.model_patcher.ModelPatcher(network, load_device=CPU, offload_device=CPU)


def applied(conditioning: Any, control: Any, image: torch.Tensor, strength: float) -> Any:
    """By the host's node, for positive and negative; the positive's is returned."""
    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        conditioning, conditioning, control, image, strength, 0.1, 0.9
    )[0]


def control_facts() -> dict[str, Any]:
    first, second = SpyNetwork(), SpyNetwork()
    images = noise(1, 96, 128, 3), noise(3, 48, 64, 3, seed=1)
    chain = applied([[TEXT, {}]], comfy.controlnet.ControlNet(first, load_device=CPU), images[0], 0.25)
    chain = applied(chain, comfy.controlnet.ControlNet(second, load_device=CPU), images[1], 0.75)
    original = chain[0][1]["control"]
    here = place(*CROPS, canvas=CANVAS, source=SOURCE, frames=range(1, 3), all_frames=3)
    [[_, facts]] = crop_conditioning(chain, here)
    control = facts["control"]
    control.pre_run(Denoiser(), lambda percent: 1.0 - percent)
    conditionings = 2
    latents = torch.zeros(4 * conditionings, 4, 12, 12)
    cond = {"c_crossattn": torch.zeros(1, 1, 8), "y": None}
    control.get_control(latents, torch.tensor([0.5]), cond, conditionings, {})
    expected = [crop_hint(image.movedim(-1, 1), here) for image in images]
    return {
        "hints": [
            torch.equal(network.hints[-1], torch.cat([hint] * (len(latents) // len(hint))))
            for network, hint in zip((first, second), expected, strict=True)
        ],
        "strengths": [control.strength, control.previous_controlnet.strength],
        "range": list(control.timestep_percent_range),
        "end of the chain": control.previous_controlnet.previous_controlnet is None,
        "models": len(control.get_models()),
        "original untouched": original.cond_hint is None
        and torch.equal(original.cond_hint_original, images[1].movedim(-1, 1))
        and original is not control
        and original.previous_controlnet is not control.previous_controlnet,
        "attributes of the fake": sorted(
            name for name in vars(FakeControl("", None)) if name != "name" and not hasattr(original, name)
        ),
    }


def area_facts() -> list[str]:
    """What the host makes of areas and masks in every tile; empty if it can work with all of them."""
    problems = []
    whole = nodes.ConditioningSetArea().append([[TEXT, {}]], 64, 48, 40, 24, 0.5)[0]
    part = nodes.ConditioningSetAreaPercentage().append([[TEXT, {}]], 0.3, 0.4, 0.6, 0.5, 0.7)[0]
    mask = nodes.ConditioningSetMask().append([[TEXT, {}]], noise(1, 50, 70), "mask bounds", 0.9)[0]
    for parity in (True, False):
        for size in (64, 96, 128):
            for x in range(0, CANVAS[0] - 95, 20):
                for y in range(0, CANVAS[1] - 95, 24):
                    here = place((x, y, x + 96, y + 96), canvas=CANVAS, source=SOURCE, size=(size, size), parity=parity)
                    latent = torch.zeros(1, 4, size // 8, size // 8)
                    entries = [dict(facts) for _, facts in crop_conditioning([*whole, *part, *mask], here)]
                    try:
                        weigh(entries, latent)
                    except Exception as error:
                        problems.append(f"{here}: {error}")
    return problems


def weigh(entries: list[dict[str, Any]], latent: torch.Tensor) -> None:
    """As the host does it before each step."""
    comfy.samplers.resolve_areas_and_cond_masks_multidim(entries, latent.shape[2:], CPU)
    for entry in entries:
        entry.update(model_conds={}, uuid=None)
        seen = comfy.samplers.get_area_and_mult(entry, latent, torch.tensor([1.0]))
        if seen.input_x.numel() == 0 or not torch.isfinite(seen.mult).all():
            raise ValueError("nothing of the tile is left")


class Clip:
    """As much of a CLIP as the node for text boxes asks for."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, text: str, return_pooled: str) -> tuple[None, torch.Tensor]:
        return None, torch.full((1, 8), float(len(text)))


def gligen_facts() -> dict[str, Any]:
    boxes: list[torch.Tensor] = []

    class Positions(torch.nn.Module):
        def forward(self, where: torch.Tensor, masks: torch.Tensor, _texts: torch.Tensor) -> torch.Tensor:
            boxes.append(where[0][masks[0] > 0])
            return where

    model = wrapped(comfy.gligen.Gligen([], Positions(), 8))
    box = nodes.GLIGENTextBoxApply()
    conditioning = box.append([[TEXT, {}]], Clip(), model, "far", 16, 16, 0, 0)[0]
    conditioning = box.append(conditioning, Clip(), model, "inside", 24, 16, 56, 40)[0]
    tiles = {}
    for name, crop in (("inside", CROPS[1]), ("none", (0, 96, 96, 192))):
        [[_, facts]] = crop_conditioning(conditioning, place(crop, canvas=CANVAS, source=SOURCE))
        kind, patcher, params = facts["gligen"]
        patcher.model.set_position((1, 4, 12, 12), params, CPU)
        tiles[name] = [kind, boxes[-1].mul(12).round(decimals=4).tolist()]
    return tiles


def reference_facts() -> list[list[int]]:
    conditioning = [[TEXT, {}]]
    for height in (12, 24):
        latent = {"samples": noise(1, 16, height, height)}
        conditioning = nodes_edit_model.ReferenceLatent.execute(conditioning, latent)[0]
    [[_, facts]] = crop_conditioning(conditioning, place(CROPS[1], canvas=CANVAS, source=SOURCE))
    return [list(latent.shape) for latent in facts["reference_latents"]]


def diffsynth_facts() -> dict[str, Any]:
    network, vae = SpyNetwork(), SpyVae()
    model = wrapped(Denoiser())
    image, mask = noise(1, 96, 128, 3), noise(1, 96, 128)
    node = nodes_model_patch.QwenImageDiffsynthControlnet()
    patched = node.diffsynth_controlnet(model, wrapped(network), vae, image=image, strength=1.0, mask=mask)[0]
    [original] = patched.model_options["transformer_options"]["patches"]["double_block"]
    said: dict[str, Any] = {
        "attributes of the fake": sorted(
            name for name in vars(FakePatch("", 0.0, image, 1.0)) if not hasattr(original, name)
        )
    }
    for name, crops in (("one", CROPS[1:]), ("two", CROPS)):
        here = place(*crops, canvas=CANVAS, source=SOURCE)
        with cropped_model(patched, here) as cropped:
            [patch] = cropped.model_options["transformer_options"]["patches"]["double_block"]
            vae.encoded = 0
            for conditionings in (2, 1):
                count = len(crops) * conditionings
                x, img = torch.zeros(count, 16, 12, 12), torch.zeros(count, 3 * 12 * 12, 1)
                patch({"x": x, "img": img, "block_index": 0})
                expected = crop_hint(image.movedim(-1, 1), here)[..., ::8, ::8].flatten(1)[..., None]
                seen = network.hints[-1].expand(count, -1, -1)
                said[f"{name}, {conditionings}"] = torch.equal(seen, expected.repeat(conditionings, 1, 1))
            said[f"{name}, encoded again"] = vae.encoded
            said[f"{name}, models"] = [found.model is network for found in patch.models()]
            patch.to(CPU)
    [after] = patched.model_options["transformer_options"]["patches"]["double_block"]
    said["original untouched"] = after is original and torch.equal(original.image, image)
    return said


def z_image_facts() -> dict[str, Any]:
    network, vae = SpyNetwork(), SpyVae()
    image, other = noise(1, 96, 128, 16), noise(1, 48, 64, 16, seed=1)
    patch = nodes_model_patch.ZImageControlPatch(wrapped(network), vae, image, 1.0, None, None)
    model = wrapped(Denoiser())
    model.set_model_patch(patch, "noise_refiner")
    model.set_model_patch(patch, "double_block")
    here = place(CROPS[1], canvas=CANVAS, source=SOURCE)
    with cropped_model(model, here) as cropped:
        patches = cropped.model_options["transformer_options"]["patches"]
        [twin] = patches["double_block"]
        same = patches["noise_refiner"][0] is twin and twin is not patch
        size = list(twin.encoded_image_size)
        shape = list(twin.encoded_image.shape)
    network.additional_in_dim = 17
    mask = noise(1, 1, 1, 96, 128)
    inpaint = nodes_model_patch.ZImageControlPatch(wrapped(network), vae, image, 1.0, inpaint_image=other, mask=mask)
    model = wrapped(Denoiser())
    model.set_model_patch(inpaint, "double_block")
    with cropped_model(model, here) as cropped:
        [twin] = cropped.model_options["transformer_options"]["patches"]["double_block"]
        inpainted = list(twin.encoded_image.shape)
    return {"same": same, "size": size, "shape": shape, "inpaint": inpainted}


def other_patches() -> dict[str, Any]:
    """Patches that only younger hosts have."""
    said = {}
    here = place(CROPS[1], canvas=CANVAS, source=SOURCE, frames=range(1, 3), all_frames=3)
    if hasattr(nodes_model_patch, "WanUni3CCnetPatch"):
        video = noise(3, 96, 128, 3)
        patch = nodes_model_patch.WanUni3CCnetPatch(wrapped(SpyNetwork()), video, SpyVae(), None, 1.0, 1.0, 0.0)
        model = wrapped(Denoiser())
        model.set_model_patch(patch, "double_block")
        with cropped_model(model, here) as cropped:
            [twin] = cropped.model_options["transformer_options"]["patches"]["double_block"]
            said["Uni3C"] = torch.equal(twin.render_video, crop_hint(video.movedim(-1, 1), here).movedim(1, -1))
    if hasattr(nodes_model_patch, "AnimaLLLiteApply"):
        from comfy.ldm.anima.lllite import AnimaLLLiteAttentionPatch, AnimaLLLitePatch

        patch = AnimaLLLitePatch(wrapped(SpyNetwork()), noise(1, 96, 128, 3), noise(1, 96, 128), 1.0, 1.0, 0.0)
        model = wrapped(Denoiser())
        model.set_model_patch(patch, "post_input")
        model.set_model_patch(AnimaLLLiteAttentionPatch(patch, {}), "attn1_patch")
        with cropped_model(model, here) as cropped:
            patches = cropped.model_options["transformer_options"]["patches"]
            [twin] = patches["post_input"]
            said["LLLite"] = [list(twin.image.shape), list(twin.mask.shape), patches["attn1_patch"][0].patch is twin]
    return said


def main() -> None:
    report(
        {
            "control": control_facts(),
            "areas": area_facts(),
            "gligen": gligen_facts(),
            "references": reference_facts(),
            "diffsynth": diffsynth_facts(),
            "z image": z_image_facts(),
            "others": other_patches(),
        }
    )


main()
