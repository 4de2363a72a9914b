"""The kit's pure half: what it makes, how it takes values apart, what it writes. (The fleet tests run its nodes.)"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from kit_nodes import aims, content, records, scene  # noqa: E402

MAX_SEED = 2**64 - 1


@pytest.mark.parametrize("seed", [0, 1, 7, MAX_SEED])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda seed: content.image(seed, 8, 6, 2), id="image"),
        pytest.param(lambda seed: content.mask(seed, 8, 6, 2), id="mask"),
        pytest.param(lambda seed: content.latent(seed, 32, 16, 2, True)["samples"], id="latent"),
        pytest.param(lambda seed: content.waveform(seed, 0.01, 8_000, 2), id="waveform"),
    ],
)
def test_content_is_a_function_of_the_seed(make: Callable[[int], Any], seed: int) -> None:
    assert torch.equal(make(seed), make(seed))
    assert not torch.equal(make(seed), make(seed ^ 1))
    assert make(seed).dtype == torch.float32


def test_content_does_not_touch_the_global_random_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    content.image(1, 8, 8, 1)
    assert torch.equal(torch.rand(4), expected)


def test_images_hold_values_that_neither_8_nor_16_bits_can() -> None:
    image = content.image(3, 32, 24, 2)
    assert image.shape == (2, 24, 32, 3)
    assert image.min() >= 0.0 and image.max() < 1.0
    for steps in (255, 65_535):
        assert not torch.equal((image * steps).round() / steps, image)
    assert not torch.equal(image.half().float(), image)
    assert not torch.equal(image[0], image[1])


def test_latents_have_sixteen_channels_and_a_mask_only_on_request() -> None:
    plain = content.latent(3, 64, 32, 2, with_mask=False)
    masked = content.latent(3, 64, 32, 2, with_mask=True)
    assert list(plain) == ["samples"]
    assert plain["samples"].shape == (2, 16, 4, 8)
    assert torch.equal(plain["samples"], masked["samples"])
    assert masked["noise_mask"].shape == (2, 1, 32, 64)


def test_the_smallest_latent_is_one_cell() -> None:
    assert content.latent(0, 1, 1, 1, with_mask=False)["samples"].shape == (1, 16, 1, 1)


@pytest.mark.parametrize(("seconds", "samples"), [(0.0, 1), (0.25, 2_000), (1.0, 8_000)])
def test_a_waveform_has_the_samples_of_its_length(seconds: float, samples: int) -> None:
    waveform = content.waveform(2, seconds, 8_000, 2)
    assert waveform.shape == (1, 2, samples)
    assert waveform.abs().max() <= 1.0


@pytest.mark.parametrize("time", [*scene.TIMES, scene.ANY_TIME])
@pytest.mark.parametrize("boats", range(scene.ANY_BOATS, scene.MAX_BOATS + 1))
def test_scenes_are_encoded_as_the_tiny_model_was_taught(boats: int, time: str) -> None:
    taught = importlib.import_module("flotilla.devtools.tiny_model.conditioning")
    context, pooled = taught.encode_scene(
        None if boats == scene.ANY_BOATS else boats, None if time == scene.ANY_TIME else time
    )
    made_context, made_pooled = scene.encode_scene(boats, time)
    assert made_context.tolist() == context
    assert made_pooled.tolist() == pooled
    assert made_context.dtype == made_pooled.dtype == torch.float32


@pytest.mark.parametrize(("boats", "time"), [(-1, "day"), (6, "day"), (2, "noon")])
def test_unknown_scenes_are_refused(boats: int, time: str) -> None:
    with pytest.raises(ValueError):
        scene.encode_scene(boats, time)


def test_values_are_taken_apart_by_name() -> None:
    image, pooled = torch.zeros(1, 2, 2, 3), torch.ones(1, 4)
    assert list(records.take_apart(image).tensors) == ["value"]
    record = records.take_apart([[image, {"pooled_output": pooled, "strength": 0.5, "hooks": object()}]])
    assert set(record.tensors) == {"0.0", "0.1.pooled_output"}
    assert torch.equal(record.tensors["0.1.pooled_output"], pooled)
    assert record.values == {"0.1.strength": 0.5, "0.1.hooks": "<object>"}
    assert records.take_apart("a line").values == {"value": "a line"}


def test_a_hash_sees_every_bit_and_not_the_memory_layout() -> None:
    tensor = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    changed = tensor.clone()
    changed[1, 2, 3] = torch.nextafter(changed[1, 2, 3], torch.tensor(1e9))
    assert records.tensor_hash(tensor) != records.tensor_hash(changed)
    assert records.tensor_hash(tensor.transpose(0, 2)) == records.tensor_hash(tensor.transpose(0, 2).contiguous())
    assert records.tensor_hash(torch.tensor([0.0])) != records.tensor_hash(torch.tensor([-0.0]))


def test_a_hash_is_blake3_of_the_bytes() -> None:
    # BLAKE3's published value for no input at all, and one taken from bytes that we lay out by hand.
    assert records.tensor_hash(torch.zeros(0)) == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    from blake3 import blake3

    assert records.tensor_hash(torch.tensor([1.0, -2.0])) == blake3(b"\x00\x00\x80\x3f\x00\x00\x00\xc0").hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8", "int64", "bool"])
def test_a_description_names_dtype_shape_and_rows(dtype: str) -> None:
    tensor = torch.tensor([[0, 1], [1, 1], [0, 1]]).to(getattr(torch, dtype))
    facts = records.describe(records.take_apart(tensor))["tensors"]["value"]
    assert facts["dtype"] == dtype
    assert facts["shape"] == [3, 2]
    assert facts["rows"] == [records.tensor_hash(row) for row in tensor]
    assert facts["rows"][0] == facts["rows"][2] != facts["rows"][1]


def test_a_description_is_json_even_for_a_single_number() -> None:
    description = records.describe(records.take_apart({"scale": torch.tensor(2.0), "rate": 8_000, "none": None}))
    assert json.loads(json.dumps(description)) == description
    assert description["tensors"]["scale"]["rows"] == []
    assert description["values"] == {"rate": 8_000, "none": None}


def test_records_come_back_from_their_file_with_every_bit(tmp_path: Path) -> None:
    shared = content.image(1, 4, 4, 2)
    value = {
        "a": shared,
        "view": shared[1:],
        "wide": shared.transpose(1, 2),
        "sample_rate": 44_100,
        "half": shared.half(),
    }
    path = tmp_path / "kit_save_x.safetensors"
    records.write_record(path, records.take_apart(value))
    found = records.read_record(path)
    assert set(found.tensors) == {"a", "view", "wide", "half"}
    for name, tensor in found.tensors.items():
        assert tensor.dtype == value[name].dtype
        assert torch.equal(tensor, value[name])
    assert found.values == {"sample_rate": 44_100}
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_description_replaces_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "kit_hash_x.json"
    records.write_description(path, {"n": 1})
    records.write_description(path, {"n": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"n": 2}
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "kit_count_x.txt"

    def write(name: str) -> None:
        for number in range(50):
            records.append_line(path, f"{name}-{number}")

    threads = [threading.Thread(target=write, args=(name * 40,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(f"{name * 40}-{number}" for name in "abcd" for number in range(50))
    assert sorted(path.read_text(encoding="utf-8").splitlines()) == expected


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a\\b", "a.b", "x" * 65, "a\n", "CON:"])
def test_only_plain_names_become_files(name: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        records.file_name("hash", name, ".json")


def test_file_names_are_the_documented_ones() -> None:
    assert records.file_name("count", "runs-1_b", ".txt") == "kit_count_runs-1_b.txt"


def test_importing_the_kit_imports_neither_the_host_nor_torch() -> None:
    program = "import sys, kit_nodes; print(*({'torch', 'comfy_api', 'folder_paths'} & set(sys.modules)))"
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("name", "index", "only_worker", "only_items", "meant"),
    [
        ("w1", -1, "", "", True),
        ("w1", 3, "w1", "", True),
        ("w2", 3, "w1", "", False),
        ("w2", 3, "w1, w2", "", True),
        ("w1", 3, "", "2, 3", True),
        ("w1", 4, "", "2,3", False),
        ("w1", -1, "", "0", False),
        ("w2", 3, "w1", "3", False),
        ("", 0, "w1", "", False),
    ],
)
def test_faults_are_aimed_at_instances_and_items(
    name: str, index: int, only_worker: str, only_items: str, meant: bool
) -> None:
    assert aims.is_meant(name, index, only_worker, only_items) is meant


@pytest.mark.parametrize(
    ("name", "speeds", "speed"), [("w1", "", 1.0), ("w1", "w1=4, w2=0.5", 4.0), ("w2", "w1=4,w2=0.5", 0.5)]
)
def test_speeds_are_by_instance(name: str, speeds: str, speed: float) -> None:
    assert aims.speed_of(name, speeds) == speed


@pytest.mark.parametrize("speeds", ["w1=0", "w1=-1", "w1=fast", "w1", "w1=nan"])
def test_speeds_that_are_none_are_refused(speeds: str) -> None:
    with pytest.raises(ValueError):
        aims.speed_of("w1", speeds)


def test_rounds_are_over_after_so_many_by_key() -> None:
    rounds = aims.Rounds()
    assert [rounds.is_over("a", 2) for _ in range(4)] == [False, False, True, True]
    assert not rounds.is_over("b", 1)
    assert not any(rounds.is_over("c", 0) for _ in range(5))
