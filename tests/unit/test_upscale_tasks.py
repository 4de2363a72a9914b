"""Which tasks there are, in which order, in every mode and with every seam fix; and what a layout refuses."""

from __future__ import annotations

from typing import Any

import pytest
from flotilla.upscale import masks
from flotilla.upscale.geometry import Box, Size, grid
from flotilla.upscale.tasks import (
    BAND,
    CROSSING,
    HALF_TILE,
    MODES,
    NOWHERE,
    REDRAW,
    SEAM_FIX_MODES,
    Layout,
    SeamFix,
    Task,
    plan_tasks,
)
from flotilla.utils.errors import InvalidInput

SQUARE = Size(2048, 2048)


def layout(mode: str = "linear", **changes: Any) -> Layout:
    values: dict[str, Any] = {
        "canvas": SQUARE,
        "tile": Size(512, 512),
        "padding": 32,
        "mask_blur": 8,
        "uniform": True,
        "mode": mode,
    }
    return Layout(**{**values, **changes})


def places(tasks: tuple[Task, ...]) -> list[list[tuple[int, int]]]:
    return [[(tile.xi, tile.yi) for tile in task.tiles] for task in tasks]


def of_stage(tasks: tuple[Task, ...], stage: str) -> list[Task]:
    return [task for task in tasks if task.stage == stage]


def test_linear_goes_row_by_row() -> None:
    tasks = plan_tasks(layout(canvas=Size(1536, 1024)))
    assert places(tasks) == [[(0, 0)], [(1, 0)], [(2, 0)], [(0, 1)], [(1, 1)], [(2, 1)]]
    assert [task.number for task in tasks] == list(range(6))
    assert {task.stage for task in tasks} == {REDRAW}
    assert not any(task.is_seam or task.from_source for task in tasks)


def test_chess_goes_over_the_white_tiles_first() -> None:
    assert places(plan_tasks(layout("chess", canvas=Size(1536, 1024)))) == [
        *([(0, 0)], [(2, 0)], [(1, 1)]),
        *([(1, 0)], [(0, 1)], [(2, 1)]),
    ]


def test_mosaic_has_four_colours_whose_tiles_are_no_neighbours() -> None:
    tasks = plan_tasks(layout("mosaic", canvas=Size(1536, 1536)))
    assert places(tasks) == [
        *([(0, 0)], [(2, 0)], [(0, 2)], [(2, 2)]),
        [(1, 1)],
        *([(1, 0)], [(1, 2)]),
        *([(0, 1)], [(2, 1)]),
    ]


def test_independent_reads_the_source_but_its_seam_fix_the_canvas() -> None:
    tasks = plan_tasks(layout("independent", seam_fix=SeamFix("Band Pass")))
    assert places(tasks)[:5] == [[(0, 0)], [(1, 0)], [(2, 0)], [(3, 0)], [(0, 1)]]
    assert all(task.from_source != task.is_seam for task in tasks)
    assert len(of_stage(tasks, BAND)) == 6


@pytest.mark.parametrize("seam_fix", SEAM_FIX_MODES)
def test_none_has_the_seam_fix_alone(seam_fix: str) -> None:
    alone = plan_tasks(layout("none", seam_fix=SeamFix(seam_fix)))
    after = plan_tasks(layout("linear", seam_fix=SeamFix(seam_fix)))[16:]
    assert [task.tiles for task in alone] == [task.tiles for task in after]
    assert not of_stage(alone, REDRAW)


def test_golden_redraw() -> None:
    by_place = {(t.tiles[0].xi, t.tiles[0].yi): t.tiles[0] for t in plan_tasks(layout())}
    assert by_place[0, 0].window == ((0, 0, 544, 544), (544, 544))
    assert by_place[1, 0].window == ((480, 0, 1056, 576), (544, 544))
    assert by_place[1, 1].window == ((480, 480, 1056, 1056), (544, 544))
    assert plan_tasks(layout(canvas=Size(1800, 1400)))[11].tiles[0].window == ((1392, 992, 1800, 1400), (544, 544))
    assert plan_tasks(layout(uniform=False))[1].tiles[0].window == ((480, 0, 1056, 544), (576, 544))


def test_golden_seam_crops() -> None:
    tasks = plan_tasks(layout(seam_fix=SeamFix("Half Tile + Intersections", padding=16)))
    halves, crossings = of_stage(tasks, HALF_TILE), of_stage(tasks, CROSSING)
    row_seam = next(task.tiles[0] for task in halves if task.tiles[0].mask.origin == (512, 256))
    assert row_seam.window == ((496, 240, 1039, 783), (512, 512))
    assert crossings[0].tiles[0].mask.origin == (256, 256)
    assert crossings[0].tiles[0].window == ((256, 256, 767, 767), (512, 512))


def test_bands_first_upright_then_level() -> None:
    fix = SeamFix("Band Pass", width=50, mask_blur=8, padding=10)
    bands = [task.tiles[0] for task in plan_tasks(layout("none", canvas=Size(1800, 1400), seam_fix=fix))]
    assert [(band.mask.kind, band.mask.origin, band.mask.size, band.window.size) for band in bands] == [
        (masks.COLUMN_BAND, (512 - 25, 0), (50, 1400), (70, 1400)),
        (masks.COLUMN_BAND, (1024 - 25, 0), (50, 1400), (70, 1400)),
        (masks.COLUMN_BAND, (1536 - 25, 0), (50, 1400), (70, 1400)),
        (masks.ROW_BAND, (0, 512 - 25), (1800, 50), (1800, 70)),
        (masks.ROW_BAND, (0, 1024 - 25), (1800, 50), (1800, 70)),
    ]
    assert {band.mask.blur for band in bands} == {0}


def test_a_band_of_odd_width_begins_half_of_it_rounded_down_before_the_seam() -> None:
    fix = SeamFix("Band Pass", width=51)
    bands = plan_tasks(layout("none", canvas=Size(1024, 1024), seam_fix=fix))
    assert [band.tiles[0].mask.origin for band in bands] == [(512 - 25, 0), (0, 512 - 25)]


def test_half_tiles_rows_then_columns_then_intersections() -> None:
    fix = SeamFix("Half Tile + Intersections", mask_blur=5)
    tasks = plan_tasks(layout("none", canvas=Size(200, 144), tile=Size(80, 72), seam_fix=fix))
    tiles = [task.tiles[0] for task in tasks]
    assert [tile.mask.origin for tile in tiles] == [
        *((0, 36), (80, 36), (160, 36)),
        *((40, 0), (120, 0), (40, 72), (120, 72)),
        *((40, 36), (120, 36)),
    ]
    assert [tile.mask.kind for tile in tiles] == (
        [masks.ROW_SEAM] * 3 + [masks.COLUMN_SEAM] * 4 + [masks.INTERSECTION] * 2
    )
    assert {tile.mask.blur for tile in tiles} == {5}
    assert {tile.window.size for tile in tiles} == {(80, 72)}


def test_without_uniform_tiles_seams_are_fitted_too() -> None:
    for fix in SEAM_FIX_MODES[1:]:
        tasks = plan_tasks(layout("none", canvas=Size(1800, 1400), uniform=False, seam_fix=SeamFix(fix, width=50)))
        assert tasks
        for task in tasks:
            crop, size = task.tiles[0].window
            assert crop.size == size
            assert size.width % 8 == size.height % 8 == 0


def test_groups_of_tiles_end_with_their_colour() -> None:
    fix = SeamFix("Half Tile")
    linear = plan_tasks(layout("linear", canvas=Size(1536, 1024), tile_batch=4, seam_fix=fix))
    assert places(linear)[:2] == [[(0, 0), (1, 0), (2, 0), (0, 1)], [(1, 1), (2, 1)]]
    assert {len(task.tiles) for task in linear if task.is_seam} == {1}
    chess = plan_tasks(layout("chess", canvas=Size(1536, 1024), tile_batch=2))
    assert places(chess) == [[(0, 0), (2, 0)], [(1, 1)], [(1, 0), (0, 1)], [(2, 1)]]
    assert [len(task.tiles) for task in plan_tasks(layout("mosaic", tile_batch=3))] == [3, 1] * 4
    assert {len(task.tiles) for task in plan_tasks(layout("linear", tile_batch=4, uniform=False))} == {1}


@pytest.mark.parametrize("mode", MODES)
def test_tiles_of_odd_sides_are_kept_in_parity_modes_and_rounded_in_ours(mode: str) -> None:
    asked = layout(mode, tile=Size(100, 61))
    assert asked.is_parity == (mode in ("linear", "chess", "none"))
    assert asked.tile == ((100, 61) if asked.is_parity else (96, 64))
    assert layout(mode, tile=Size(8, 9)).tile.width == 8
    for task in plan_tasks(layout(mode, tile=Size(612, 601), seam_fix=SeamFix("Band Pass", width=3, padding=0))):
        size = task.tiles[0].window.size
        assert min(size) > 0
        assert asked.is_parity or size.width % 8 == size.height % 8 == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seam_fix", SEAM_FIX_MODES)
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize(("padding", "blur"), [(0, 0), (32, 8), (256, 256)])
@pytest.mark.parametrize("canvas", [Size(8, 8), Size(264, 136), Size(1032, 328)])
def test_extremes(mode: str, seam_fix: str, uniform: bool, padding: int, blur: int, canvas: Size) -> None:
    tile = Size(128, 64)
    fix = SeamFix(seam_fix, width=64, mask_blur=blur, padding=padding)
    asked = layout(
        mode, canvas=canvas, tile=tile, padding=padding, mask_blur=blur, uniform=uniform, seam_fix=fix, tile_batch=3
    )
    tasks = plan_tasks(asked)
    cols, rows = grid(canvas, tile)
    redrawn = sorted(
        place for task, group in zip(tasks, places(tasks), strict=True) if not task.is_seam for place in group
    )
    assert redrawn == sorted((xi, yi) for xi in range(cols) for yi in range(rows) if mode != "none")
    whole = Box(0, 0, *canvas)
    for number, task in enumerate(tasks):
        assert task.number == number
        assert len({tile.window.size for tile in task.tiles}) == 1
        for one in task.tiles:
            assert one.window.crop.intersect(whole) == one.window.crop
            assert one.touch.intersect(one.window.crop) == one.touch != NOWHERE
            assert one.mask.bounds.meets(one.touch)
            assert one.mask.alpha(one.touch).getbbox() is not None


def test_what_a_tile_touches_is_all_that_its_mask_changes_in_its_crop() -> None:
    for task in plan_tasks(layout(canvas=Size(264, 136), tile=Size(128, 64), mask_blur=40, padding=8)):
        tile = task.tiles[0]
        found = tile.mask.alpha(tile.window.crop).getbbox()
        assert found is not None
        exact = Box(*found).moved(tile.window.crop.x1, tile.window.crop.y1)
        assert exact.intersect(tile.touch) == exact


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mode": "Linear"}, "mode"),
        ({"canvas": Size(0, 64)}, "width of the upscaled image"),
        ({"canvas": Size(64, 1 << 20)}, "height of the upscaled image"),
        ({"tile": Size(7, 64)}, "tile_width"),
        ({"tile": Size(64, 9000)}, "tile_height"),
        ({"padding": -1}, "padding"),
        ({"mask_blur": 5000}, "mask_blur"),
        ({"tile_batch": 0}, "tile_batch"),
    ],
)
def test_a_layout_names_what_it_refuses(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named) as caught:
        layout(**changes)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mode": "band"}, "seam_fix_mode"),
        ({"width": 1}, "seam_fix_width"),
        ({"mask_blur": -1}, "seam_fix_mask_blur"),
        ({"padding": -8}, "seam_fix_padding"),
    ],
)
def test_a_seam_fix_names_what_it_refuses(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        SeamFix(**{"mode": "Band Pass", **changes})
