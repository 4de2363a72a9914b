"""Items come in any order, from several sides at once, and are joined by index."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import pytest
import torch
from fakes.deliveries import deliver, fill, image, packed, picture, sound
from flotilla.transport import assemble
from flotilla.transport.assemble import Assembly
from flotilla.transport.values import AUDIO, IMAGE, JSON, LATENT, MASK, Value
from flotilla.utils.errors import InvalidInput, NotFound, TooLarge


def test_items_that_fit_are_joined_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.Tensor] = []

    def counting(shape: tuple[int, ...], dtype: torch.dtype, _reserve: object) -> torch.Tensor:
        taken.append(torch.empty(shape, dtype=dtype))
        return taken[-1]

    monkeypatch.setattr(assemble, "empty", counting)
    assembly = Assembly(3)
    for index in (2, 0):
        deliver(assembly, index, picture(index))
    assembly.put_local(1, picture(1))
    assert assembly.missing() == []
    joined = assembly.finish()["images"]
    assert len(taken) == 1
    assert joined.data_ptr() == taken[0].data_ptr()
    assert torch.equal(joined, torch.cat([image(k) for k in range(3)]))


def test_missing_items_close_up() -> None:
    assembly = Assembly(4)
    for index in (3, 1):
        deliver(assembly, index, picture(index))
    assert assembly.missing() == [0, 2]
    assert torch.equal(assembly.finish()["images"], torch.cat([image(1), image(3)]))


def test_other_batch_sizes() -> None:
    assembly = Assembly(3)
    deliver(assembly, 0, picture(0, 2))
    deliver(assembly, 1, picture(1, 5))
    deliver(assembly, 2, picture(2, 2))
    assert torch.equal(assembly.finish()["images"], torch.cat([image(0, 2), image(1, 5), image(2, 2)]))


def test_other_float_types_are_promoted() -> None:
    assembly = Assembly(2)
    deliver(assembly, 0, {"m": Value(MASK, torch.ones(1, 2, 2, dtype=torch.float16))})
    deliver(assembly, 1, {"m": Value(MASK, torch.full((1, 2, 2), 0.1))})
    joined = assembly.finish()["m"]
    assert joined.dtype == torch.float32
    assert joined[1, 0, 0].item() == pytest.approx(0.1)


def test_other_sizes_are_refused_with_items_and_cure() -> None:
    assembly = Assembly(3)
    deliver(assembly, 0, picture(0))
    _, manifest = packed(picture(1, size=(5, 4, 3)))
    with pytest.raises(InvalidInput, match=r"item 2 is 5×4×3, of item 0 3×4×3") as caught:
        assembly.sink_for(2, manifest)
    assert "Upscale Image" in caught.value.cure
    assert assembly.missing() == [1, 2]
    with pytest.raises(InvalidInput):
        assembly.put_local(1, picture(1, size=(5, 4, 3)))


def test_another_kind_under_the_same_name_is_refused() -> None:
    assembly = Assembly(2)
    deliver(assembly, 0, picture(0))
    with pytest.raises(InvalidInput, match="'images' of item 1 is MASK, of item 0 IMAGE"):
        assembly.put_local(1, {"images": Value(MASK, torch.ones(1, 2, 2))})


def test_a_value_that_only_some_items_have() -> None:
    assembly = Assembly(3)
    deliver(assembly, 0, picture(0))
    assembly.put_local(1, sound(3))
    deliver(assembly, 2, {**picture(2), **sound(2)})
    joined = assembly.finish()
    assert torch.equal(joined["images"], torch.cat([image(0), image(2)]))
    assert joined["audio"]["waveform"][0, 0].tolist() == [3, 3, 3, 2, 2]


def test_an_abandoned_item_does_not_set_the_size() -> None:
    assembly = Assembly(2)
    _, manifest = packed(picture(0, size=(9, 9, 3)))
    sink = assembly.sink_for(0, manifest)
    assert sink is not None
    assembly.abandon(sink)
    assert deliver(assembly, 0, picture(0))
    assert deliver(assembly, 1, picture(1))
    assert torch.equal(assembly.finish()["images"], torch.cat([image(0), image(1)]))


def test_the_first_of_two_deliveries_wins_and_they_share_no_memory() -> None:
    assembly = Assembly(2)
    data, manifest = packed(picture(0))
    other_data, other_manifest = packed(picture(7))
    slow = assembly.sink_for(0, manifest)
    fast = assembly.sink_for(0, other_manifest)
    assert slow is not None
    assert fast is not None
    fill(fast, other_data, other_manifest)
    assert assembly.arrived(fast)
    deliver(assembly, 1, picture(1))
    joined = assembly.finish()["images"]
    fill(slow, data, manifest)  # the loser goes on writing
    assert not assembly.arrived(slow)
    assert torch.equal(joined, torch.cat([image(7), image(1)]))


def test_the_loser_may_come_first_and_give_up() -> None:
    assembly = Assembly(2)
    data, manifest = packed(picture(0))
    broken = assembly.sink_for(0, manifest)
    good = assembly.sink_for(0, manifest)
    assert broken is not None
    assert good is not None
    fill(good, data, manifest)
    assembly.abandon(broken)
    assert assembly.arrived(good)
    deliver(assembly, 1, picture(1))
    assert torch.equal(assembly.finish()["images"], torch.cat([image(0), image(1)]))


def test_a_duplicate_is_a_no_op() -> None:
    assembly = Assembly(1)
    data, manifest = packed(picture(0))
    sink = assembly.sink_for(0, manifest)
    assert sink is not None
    fill(sink, data, manifest)
    assert assembly.arrived(sink)
    assert not assembly.arrived(sink)
    assembly.abandon(sink)
    assert not deliver(assembly, 0, picture(9))
    assert not assembly.put_local(0, picture(9))
    assert torch.equal(assembly.finish()["images"], image(0))


def test_after_the_end_nothing_is_taken() -> None:
    assembly = Assembly(2)
    data, manifest = packed(picture(1))
    late = assembly.sink_for(1, manifest)
    assert late is not None
    deliver(assembly, 0, picture(0))
    joined = assembly.finish()["images"]
    fill(late, data, manifest)
    assert not assembly.arrived(late)
    assert assembly.sink_for(1, manifest) is None
    assert torch.equal(joined, image(0))
    with pytest.raises(NotFound):
        assembly.finish()


def test_nothing_arrived() -> None:
    with pytest.raises(NotFound):
        Assembly(2).finish()


def test_indices_and_counts_are_checked() -> None:
    with pytest.raises(InvalidInput):
        Assembly(0)
    for index in (-1, 2):
        with pytest.raises(InvalidInput, match=f"no item {index}"):
            Assembly(2).put_local(index, picture(0))


@pytest.mark.parametrize("precision", ["half", "8bit"])
def test_reduced_precision_is_widened_in_place(precision: str) -> None:
    assembly = Assembly(2)
    deliver(assembly, 1, picture(1), precision)
    assembly.put_local(0, picture(0))
    joined = assembly.finish()["images"]
    assert joined.dtype == torch.float32
    assert torch.equal(joined[:2], image(0))
    assert (joined[2:] - image(1)).abs().max().item() <= 0.5 / 255


def test_what_comes_out_is_an_ordinary_tensor() -> None:
    with torch.inference_mode():
        assembly = Assembly(2)
        assembly.put_local(0, picture(0))
        deliver(assembly, 1, picture(1, 3))
        assembly_of_one = Assembly(1)
        deliver(assembly_of_one, 0, {**picture(0), **sound(3)}, "8bit")
        outs = [assembly.finish()["images"], assembly_of_one.finish()["images"]]
    for out in outs:
        assert not out.is_inference()
        out.add_(1)  # in-place work outside inference mode


def test_memory_is_freed_with_the_last_tensor() -> None:
    assembly = Assembly(2)
    for index in range(2):
        deliver(assembly, index, picture(index))
    part = assembly.finish()["images"][1:2]
    storage = weakref.ref(part.untyped_storage())
    del assembly
    gc.collect()
    assert storage() is not None
    assert torch.equal(part, image(0)[1:2])
    del part
    gc.collect()
    assert storage() is None


def test_local_items_of_any_layout() -> None:
    assembly = Assembly(2)
    source = image(0, size=(4, 3, 3)).transpose(1, 2).requires_grad_()
    assembly.put_local(0, {"images": Value(IMAGE, source)})
    with torch.inference_mode():
        assembly.put_local(1, {"images": Value(IMAGE, image(1) * 1)})
    joined = assembly.finish()["images"]
    assert not joined.requires_grad
    assert torch.equal(joined, torch.cat([source.detach(), image(1)]))


def test_no_memory_is_a_typed_error() -> None:
    _, manifest = packed({"images": Value(IMAGE, torch.rand(1, 8, 8, 3))})
    with pytest.raises(TooLarge, match="no memory"):
        Assembly(2**50).sink_for(0, manifest)


def test_latents_join_with_masks_and_batch_index() -> None:
    assembly = Assembly(2)
    for index, batch in enumerate((2, 3)):
        latent: dict[str, Any] = {
            "samples": image(index, batch, (4, 2, 2)),
            "noise_mask": torch.full((1, 2, 2), float(index)),
            "only_first" if index == 0 else "only_second": torch.ones(1),
            "scale": torch.tensor(float(index)),
            "batch_index": list(range(10 * index, 10 * index + batch)),
            "type": f"t{index}",
        }
        deliver(assembly, index, {"x": Value(LATENT, latent)})
    joined = assembly.finish()["x"]
    assert torch.equal(joined["samples"], torch.cat([image(0, 2, (4, 2, 2)), image(1, 3, (4, 2, 2))]))
    assert joined["noise_mask"][:, 0, 0].tolist() == [0, 0, 1, 1, 1]
    assert joined["batch_index"] == [0, 1, 10, 11, 12]
    assert joined["type"] == "t0"
    assert joined["scale"].item() == 0.0
    assert "only_first" in joined
    assert "only_second" not in joined


def test_a_batch_index_that_not_all_have_is_left_out() -> None:
    assembly = Assembly(2)
    assembly.put_local(0, {"x": Value(LATENT, {"samples": image(0, 1), "batch_index": [0]})})
    assembly.put_local(1, {"x": Value(LATENT, {"samples": image(1, 1)})})
    assert "batch_index" not in assembly.finish()["x"]


def test_audio_joins_along_samples_in_item_order() -> None:
    assembly = Assembly(4)
    assembly.put_local(3, sound(2))
    assembly.put_local(0, sound(3))
    assembly.put_local(1, {"audio": Value(AUDIO, None)})
    deliver(assembly, 2, sound(0, rate=8_000, channels=1))
    joined = assembly.finish()["audio"]
    assert joined["waveform"][0, 0].tolist() == [3, 3, 3, 2, 2]
    assert joined["sample_rate"] == 44_100


def test_audio_of_other_rates_or_channels_is_refused() -> None:
    for other in (sound(3, rate=48_000), sound(3, channels=1)):
        assembly = Assembly(3)
        assembly.put_local(0, sound(3))
        with pytest.raises(InvalidInput, match=r"of item 2 is audio of .* of item 0 of 44100 Hz with 2 channels"):
            assembly.put_local(2, other)


def test_values_that_items_lack() -> None:
    assembly = Assembly(3)
    nothing = {"images": Value(IMAGE, None), "audio": Value(AUDIO, None), "facts": Value(JSON, {"k": 0})}
    assembly.put_local(0, nothing)
    deliver(assembly, 1, {**nothing, **picture(1), "facts": Value(JSON, {"k": 1})})
    assembly.put_local(2, {**nothing, **picture(2), "facts": Value(JSON, {"k": 2})})
    joined = assembly.finish()
    assert torch.equal(joined["images"], torch.cat([image(1), image(2)]))
    assert joined["audio"] is None
    assert joined["facts"] == [{"k": 0}, {"k": 1}, {"k": 2}]


def test_eight_threads_deliver_every_item_twice() -> None:
    count = 16
    assembly = Assembly(count)
    taken = [0] * count
    lock = threading.Lock()
    barrier = threading.Barrier(8)

    def work(offset: int) -> None:
        barrier.wait(10)
        for step in range(count // 4):
            index = (offset * (count // 4) + step) % count
            if deliver(assembly, index, picture(index)):
                with lock:
                    taken[index] += 1

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert taken == [1] * count
    assert torch.equal(assembly.finish()["images"], torch.cat([image(k) for k in range(count)]))


def test_an_abandoned_example_is_replaced_by_another() -> None:
    assembly = Assembly(4)
    _, odd = packed(picture(0, size=(9, 9, 3)))
    first = assembly.sink_for(0, odd)
    second = assembly.sink_for(1, odd)
    assert first is not None
    assert second is not None
    assembly.abandon(first)
    with pytest.raises(InvalidInput, match=r"of item 1 9×9×3"):
        assembly.put_local(2, picture(2))
    assembly.abandon(second)
    assert assembly.put_local(2, picture(2))
    with pytest.raises(InvalidInput, match=r"of item 2 3×4×3"):
        assembly.sink_for(3, odd)


def test_many_items_are_taken_in_time_that_grows_with_their_number_only() -> None:
    """Comparing each with all before it would be two hundred million steps."""
    count = 20_000
    assembly = Assembly(count)
    value = {"x": Value(MASK, torch.zeros(1, 1, 1))}
    started_s = time.perf_counter()
    for index in range(count):
        assembly.put_local(index, value)
    assert assembly.finish()["x"].shape == (count, 1, 1)
    assert time.perf_counter() - started_s < 20
