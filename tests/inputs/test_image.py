from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import GraphInput, ImageReader, default_preprocessor
from palrp_onnx.inputs import image as image_module

pytestmark = pytest.mark.quick

FLOAT = np.dtype(np.float32)
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "LA", "1", "PA-transparent")
VIT = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}


def pixels(*shape: int | str | None, dtype: np.dtype[Any] = FLOAT) -> list[GraphInput]:
    dims = shape or ("batch", 3, "height", "width")
    return [GraphInput("pixel_values", dtype, dims)]


def picture(mode: str = "RGB", size: tuple[int, int] = (37, 53), seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    # Blocks as well as noise: resampling filters differ in both.
    noise[size[1] // 3 :, : size[0] // 2] = (200, 30, 90, 128)
    rgba = Image.fromarray(noise, "RGBA")
    if mode == "PA-transparent":
        return rgba.quantize(16)
    return (
        rgba.convert("RGB").convert(mode) if mode in ("1", "CMYK", "P", "L") else rgba.convert(mode)
    )


def store(folder: Path, image: Image.Image, name: str = "cat", **options: Any) -> Path:
    path = folder / (f"{name}.jpg" if image.mode == "CMYK" else f"{name}.png")
    image.save(path, **options)
    return path


def configure(folder: Path, config: object) -> Path:
    path = default_preprocessor(folder / "model.onnx")
    path.write_text(json.dumps(config))
    return path


def reader(folder: Path, **changes: Any) -> ImageReader:
    return ImageReader(configure(folder, {**VIT, **changes}), pixels())


# --- the same pixels as Hugging Face ------------------------------------------------------------

SIDES = {"size": {"height": 21, "width": 17}}
EDGE = {"size": {"shortest_edge": 19}}
CROP = {"crop_size": {"height": 16, "width": 15}}
CONFIGS: dict[str, list[dict[str, Any]]] = {
    "ViT": [
        {},
        SIDES,
        {"size": 24},
        {"size": [13, 24]},
        {**SIDES, "resample": 0},
        {**SIDES, "do_rescale": False},
        {**SIDES, "do_normalize": False},
        {**SIDES, "do_rescale": False, "do_normalize": False},
        {"do_resize": False},
        {**SIDES, "image_mean": 0.4, "image_std": 0.3, "rescale_factor": 1 / 127.5},
        {"size": None, "image_mean": None, "do_convert_rgb": None},
    ],
    "DeiT": [{}, {**SIDES, **CROP}, {"size": 24, "crop_size": 40}, {**SIDES, "resample": 1}],
    "Beit": [{}, {**SIDES, **CROP}, {"size": 18, "do_center_crop": False, "resample": 5}],
    "Siglip": [{}, SIDES],
    "CLIP": [
        {},
        {**EDGE, **CROP},
        {"size": 19, "crop_size": 16},
        {**EDGE, "crop_size": 31},
        {**EDGE, "crop_size": {"height": 18, "width": 33}},
        {**SIDES, **CROP},
        {**EDGE, "do_center_crop": False},
        {"do_resize": False, "crop_size": 45},
    ],
    "Bit": [{}, {**EDGE, **CROP, "resample": 4}],
    "ConvNext": [
        {},
        {"size": 384},
        {"size": 32},
        {"size": {"shortest_edge": 33}, "crop_pct": 0.9, "resample": 3},
        {"size": 30, "crop_pct": None},
        {"do_resize": False},
    ],
    "Flava": [SIDES | CROP],
    "Blip": [{}, SIDES],
    "OwlViT": [SIDES, {**SIDES, **CROP, "do_center_crop": True}],
    "ChineseCLIP": [{**SIDES, **CROP}],
    "EfficientNet": [
        {},
        {**SIDES, "include_top": False, "resample": 2},
        {**SIDES, **CROP, "do_center_crop": True},
    ],
    "EfficientFormer": [SIDES | CROP],
    "MobileNetV1": [{}, {**EDGE, **CROP}],
    "MobileNetV2": [{}, {**EDGE, **CROP, "resample": 3}],
    "MobileViT": [{}, {**EDGE, **CROP}, {**EDGE, "do_flip_channel_order": False}],
    "Levit": [{}, {**EDGE, **CROP}],
    "PoolFormer": [
        {},
        {**EDGE, **CROP},
        {**EDGE, "crop_pct": 0.7, "crop_size": 19},
        {"size": {"height": 20, "width": 20}, **CROP},
        {**SIDES, **CROP},
    ],
    "Segformer": [SIDES, {**SIDES, "do_reduce_labels": True}],
    "Pvt": [{}, SIDES],
    "DPT": [
        SIDES,
        {**SIDES, "keep_aspect_ratio": True, "ensure_multiple_of": 7},
        {"size": {"height": 60, "width": 30}, "keep_aspect_ratio": True, "ensure_multiple_of": 4},
        {**SIDES, "ensure_multiple_of": 5},
    ],
    "GLPN": [{"size_divisor": 8}, {"size_divisor": 5, "resample": 3}],
    "Perceiver": [{}, {**SIDES, "crop_size": {"height": 24, "width": 20}}],
    "Vilt": [{"size": {"shortest_edge": 40}, "size_divisor": 8}, {"size": 33, "size_divisor": 4}],
    "Donut": [
        {"size": {"height": 40, "width": 30}},
        {"size": {"height": 24, "width": 45}, "do_thumbnail": False, "do_pad": False},
        {"size": [31, 44]},
    ],
    "Sam": [
        {"size": {"longest_edge": 45}, "pad_size": {"height": 50, "width": 48}},
        {"size": {"longest_edge": 64}, "do_pad": False},
    ],
    "Yolos": [{"size": {"shortest_edge": 50, "longest_edge": 90}}],
    "Detr": [
        {"size": {"shortest_edge": 40, "longest_edge": 90}},
        {"size": {"shortest_edge": 80, "longest_edge": 90}},
        {"size": {"shortest_edge": 37, "longest_edge": 90}},
        SIDES,
    ],
    "ConditionalDetr": [{"size": {"shortest_edge": 80, "longest_edge": 91}}],
    "MaskFormer": [
        {"size": {"shortest_edge": 40, "longest_edge": 45}, "size_divisor": 8},
        {"size": {"shortest_edge": 40, "longest_edge": 90}, "size_divisor": 7},
        {"size": 21, "max_size": 22},
        SIDES,
    ],
    "Mask2Former": [{"size": {"shortest_edge": 33, "longest_edge": 40}, "size_divisor": 5}],
    "Swin2SR": [{}, {"size_divisor": 5}, {"do_pad": False}, {"size_divisor": 37, "pad_size": 37}],
    "RTDetr": [SIDES, {**SIDES, "do_normalize": True}],
}
CASES = [(name, config) for name, configs in CONFIGS.items() for config in configs]


@pytest.fixture(scope="module")
def hugging_face() -> Any:
    return pytest.importorskip("transformers")


def expected_pixels(transformers: Any, config: dict[str, Any], path: Path) -> Any:
    processor = getattr(transformers, config["image_processor_type"]).from_dict(config)
    image = transformers.image_utils.load_image(str(path))
    return processor(image, return_tensors="np", input_data_format="channels_last")["pixel_values"]


def compare(hugging_face: Any, folder: Path, path: Path, config: dict[str, Any]) -> None:
    sample = ImageReader(configure(folder, config), pixels()).read_file(path)
    expected = expected_pixels(hugging_face, config, path)
    assert sample.feeds["pixel_values"].dtype == np.float32
    assert sample.feeds["pixel_values"].shape == expected.shape
    difference = sample.feeds["pixel_values"].astype(np.float64) - expected
    assert np.abs(difference).max() <= 1e-6


@pytest.mark.parametrize(("name", "config"), CASES)
def test_configurations_match(
    tmp_path: Path, hugging_face: Any, name: str, config: dict[str, Any]
) -> None:
    config = {"image_processor_type": f"{name}ImageProcessor", **config}
    for size in ((37, 53), (50, 21)):
        compare(hugging_face, tmp_path, store(tmp_path, picture(size=size)), config)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["CLIP", "ConvNext"])
def test_modes_match(tmp_path: Path, hugging_face: Any, mode: str, name: str) -> None:
    config = {"image_processor_type": f"{name}ImageProcessor", "size": 19}
    compare(hugging_face, tmp_path, store(tmp_path, picture(mode)), config)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_matches(tmp_path: Path, hugging_face: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = store(tmp_path, picture(), exif=exif)
    config = {"image_processor_type": "CLIPImageProcessor", **EDGE, **CROP}
    compare(hugging_face, tmp_path, path, config)
    sample = reader(tmp_path).read_file(path)
    upright = (53, 37) if orientation > 4 else (37, 53)
    assert sample.facts.size == upright
    assert sample.geometry is not None
    assert sample.geometry.size == upright
    assert sample.image is not None
    assert (sample.image.size, sample.image.mode) == (upright, "RGB")


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    edge=st.integers(1, 30),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_sizes_match(
    tmp_path_factory: pytest.TempPathFactory,
    hugging_face: Any,
    size: tuple[int, int],
    edge: int,
    crop: tuple[int, int],
) -> None:
    folder = tmp_path_factory.getbasetemp()
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "size": edge,
        "crop_size": {"height": crop[0], "width": crop[1]},
    }
    compare(hugging_face, folder, store(folder, picture(size=size)), config)


def test_one_channel_matches(tmp_path: Path, hugging_face: Any) -> None:
    config = {**VIT, "image_mean": [0.3], "image_std": [0.2]}
    path = store(tmp_path, picture("L"))
    processor = hugging_face.ViTImageProcessor.from_dict(config)
    grey = np.asarray(Image.open(path))[..., None]
    expected = processor(grey, return_tensors="np", input_data_format="channels_last")
    (tmp_path / "config.json").write_text('{"num_channels": 1}')
    for channels in (1, "channels"):
        inputs = pixels(1, channels, 8, 8)
        sample = ImageReader(configure(tmp_path, config), inputs).read_file(path)
        np.testing.assert_array_equal(sample.feeds["pixel_values"], expected["pixel_values"])


# --- pixels as ids of colours --------------------------------------------------------------------

IDS = GraphInput("input_ids", np.dtype(np.int64), ("batch", "tokens"))
CLUSTERS = np.random.default_rng(1).uniform(-1, 1, (64, 3)).tolist()
GPT = {"image_processor_type": "ImageGPTImageProcessor", "clusters": CLUSTERS, **SIDES}


@pytest.mark.parametrize("changes", [{}, {"size": 9, "resample": 3}, {"do_resize": False}])
def test_colours_match(tmp_path: Path, hugging_face: Any, changes: dict[str, Any]) -> None:
    path, config = store(tmp_path, picture()), {**GPT, **changes}
    sample = ImageReader(configure(tmp_path, config), [IDS]).read_file(path)
    processor = hugging_face.ImageGPTImageProcessor.from_dict(config)
    expected = processor(Image.open(path), return_tensors="np")["input_ids"]
    np.testing.assert_array_equal(sample.feeds["input_ids"], expected)
    assert sample.feeds["input_ids"].dtype == np.int64


def test_units_of_colours_are_pixels(tmp_path: Path) -> None:
    """A red pixel at row 1, column 2 of three rows is the unit that its grid says."""
    image = Image.new("RGB", (4, 3))
    image.putpixel((2, 1), (255, 0, 0))
    mask = GraphInput("attention_mask", np.dtype(np.int64), ("batch", "tokens"))
    config = {**GPT, "do_resize": False, "clusters": [[-1, -1, -1], [1, -1, -1]]}
    reader = ImageReader(configure(tmp_path, config), [IDS, mask])
    sample = reader.read_file(store(tmp_path, image))
    assert sample.units is not None
    (unit,) = np.flatnonzero(sample.feeds["input_ids"][0])
    assert (sample.units.grid, sample.units.name(int(unit))) == ((3, 4), "(1, 2)")
    assert sample.feeds["attention_mask"].tolist() == [[1] * 12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": None}, "clusters"),
        ({"clusters": [[0, 1]]}, "clusters"),
        ({"clusters": [[0, 1, float("nan")]]}, "clusters"),
        ({"do_color_quantize": False}, "do_color_quantize"),
        ({"do_normalize": False}, "do_normalize"),
        ({"image_mean": [0.4, 0.5, 0.5]}, "image_mean"),
    ],
)
def test_colours_that_cannot_be_followed(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ImageReader(configure(tmp_path, {**GPT, **changes}), [IDS])


def test_colours_do_not_fit_pixels_or_another_length(tmp_path: Path) -> None:
    config = configure(tmp_path, GPT)
    with pytest.raises(InputError, match="colours of pixels are ids"):
        ImageReader(config, pixels())
    fixed = ImageReader(config, [GraphInput("input_ids", np.dtype(np.int64), (1, 64))])
    with pytest.raises(InputError, match="does not fit"):
        fixed.read_file(store(tmp_path, picture()))


# --- pixels as patches in a row -------------------------------------------------------------------

SIGLIP2 = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 4, "max_num_patches": 30}


def row_of_patches(number: int | str = "patches", features: int | str = 48) -> list[GraphInput]:
    return [
        GraphInput("pixel_values", FLOAT, ("batch", number, features)),
        GraphInput("pixel_attention_mask", np.dtype(np.int32), ("batch", number)),
        GraphInput("spatial_shapes", np.dtype(np.int64), ("batch", 2)),
    ]


@pytest.mark.parametrize("size", [(37, 53), (50, 21), (1, 90), (7, 7), (400, 30)])
@pytest.mark.parametrize("changes", [{}, {"max_num_patches": 64, "patch_size": 3, "resample": 3}])
def test_patches_match(
    tmp_path: Path, hugging_face: Any, size: tuple[int, int], changes: dict[str, Any]
) -> None:
    path, config = store(tmp_path, picture(size=size)), {**SIGLIP2, **changes}
    processor = hugging_face.Siglip2ImageProcessor.from_dict(config)
    expected = processor(Image.open(path), return_tensors="np")
    whole = expected["pixel_values"].shape
    fixed = ImageReader(configure(tmp_path, config), row_of_patches(*whole[1:])).read_file(path)
    for name, array in expected.items():
        np.testing.assert_allclose(fixed.feeds[name], array, atol=1e-6)
    count = int(expected["pixel_attention_mask"].sum())
    free = ImageReader(configure(tmp_path, config), row_of_patches("n", "f")).read_file(path)
    for name in ("pixel_values", "pixel_attention_mask"):
        np.testing.assert_array_equal(free.feeds[name], fixed.feeds[name][:, :count])
    assert free.units is not None
    assert [free.units.grid] == [*map(tuple, expected["spatial_shapes"].tolist())]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (row_of_patches()[:2], "positions may be those of another shape"),
        (row_of_patches()[1:], "patches of an image are an input"),
        (pixels(), "patches of an image are an input"),
        ([*row_of_patches(), GraphInput("other", FLOAT, ("batch", 7))], "patches of an image"),
        (
            [replace(each, receives="padding") for each in row_of_patches()],
            "hides patches where it is not zero",
        ),
    ],
)
def test_graphs_that_patches_do_not_fit(
    tmp_path: Path, inputs: list[GraphInput], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ImageReader(configure(tmp_path, SIGLIP2), inputs)


def test_patches_are_not_padded_without_a_mask(tmp_path: Path) -> None:
    values, _, shapes = row_of_patches(30)
    path = store(tmp_path, picture(size=(50, 21)))
    with pytest.raises(InputError, match="does not fit"):
        ImageReader(configure(tmp_path, SIGLIP2), [values, shapes]).read_file(path)


def test_patches_are_cut_from_resized_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whole patches"):
        ImageReader(configure(tmp_path, {**SIGLIP2, "do_resize": False}), row_of_patches())


def test_an_image_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one frame, and not a video.*numpy\.savez"):
        ImageReader(configure(tmp_path, VIT), pixels(1, 16, 3, 8, 8))


VIDEO = {"image_processor_type": "VideoMAEImageProcessor"}


def animated(folder: Path, count: int, name: str = "clip.webp") -> tuple[Path, list[Image.Image]]:
    frames = [picture(seed=seed, size=(40, 30)) for seed in range(count)]
    path = folder / name
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    return path, frames


@pytest.mark.parametrize("changes", [{"size": {"shortest_edge": 19}, **CROP}, SIDES | CROP])
def test_pictures_of_a_video_match(
    tmp_path: Path, hugging_face: Any, changes: dict[str, Any]
) -> None:
    config = VIDEO | changes
    path, frames = animated(tmp_path, 9)
    sample = ImageReader(configure(tmp_path, config), pixels("b", 4, 3, "h", "w")).read_file(path)
    processor = hugging_face.VideoMAEImageProcessor.from_dict(config)
    chosen = [frames[k] for k in (0, 2, 4, 6)]
    expected = processor(chosen, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(sample.feeds["pixel_values"], expected, atol=1e-6)
    assert [w.message for w in sample.warnings] == [
        "4 of 9 pictures were taken, at equal distances"
    ]
    channels_first = ImageReader(configure(tmp_path, config), pixels("b", 3, 4, "h", "w"))
    np.testing.assert_allclose(
        channels_first.read_file(path).feeds["pixel_values"], np.moveaxis(expected, 2, 1), atol=1e-6
    )


def test_the_number_of_pictures(tmp_path: Path) -> None:
    config = configure(tmp_path, VIDEO | {"size": 19} | CROP)
    graph = pixels("b", "pictures", "channels", "h", "w")
    path, _ = animated(tmp_path, 6, "clip.png")
    sample = ImageReader(config, graph).read_file(path)
    assert sample.feeds["pixel_values"].shape == (1, 6, 3, 16, 15) and not sample.warnings
    (tmp_path / "config.json").write_text('{"num_frames": 3}')
    assert ImageReader(config, graph).read_file(path).feeds["pixel_values"].shape[1] == 3
    with pytest.raises(InputError, match="has 6 pictures; the model takes 7") as caught:
        ImageReader(config, pixels("b", 7, 3, 16, 15)).read_file(path)
    assert caught.value.place == str(path)
    still = store(tmp_path, picture())
    with pytest.raises(InputError, match="one frame, and not a video"):
        ImageReader(config, graph).read_file(still)
    with pytest.raises(InputError, match="a video provides one input of rank 5"):
        ImageReader(config, pixels())


def test_the_mirror_continues_to_the_right_and_below(tmp_path: Path) -> None:
    swin = {"image_processor_type": "Swin2SRImageProcessor", "size_divisor": 10}
    assert box(tmp_path, (37, 20), **swin) == (0, 0, 40, 30)


# --- the way back -------------------------------------------------------------------------------


def box(folder: Path, original: tuple[int, int], **config: Any) -> tuple[float, ...]:
    sample = ImageReader(configure(folder, config), pixels()).read_file(
        store(folder, picture(size=original))
    )
    assert sample.geometry is not None
    assert sample.geometry.size == original
    return sample.geometry.box


def test_boxes(tmp_path: Path) -> None:
    clip = {"image_processor_type": "CLIPImageProcessor", "size": 10}
    convnext = {"image_processor_type": "ConvNextImageProcessor", "size": 8, "crop_pct": 0.8}
    assert box(tmp_path, (40, 20), **VIT) == (0, 0, 40, 20)
    # 40 × 20 → 20 × 10 → the middle 10 × 10
    assert box(tmp_path, (40, 20), **clip, crop_size=10) == (10, 0, 30, 20)
    # The crop reaches five pixels of the half-sized image beyond its top and bottom.
    assert box(tmp_path, (40, 20), **clip, crop_size=20) == (0, -10, 40, 30)
    # crop_pct: 40 × 20 → 20 × 10 → the middle 8 × 8
    assert box(tmp_path, (40, 20), **convnext) == (12, 2, 28, 18)


def test_box_shows_where_a_mark_is(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 32))
    image.paste((255, 0, 0), (24, 8, 40, 24))
    config = {"image_processor_type": "CLIPImageProcessor", "size": 16, "crop_size": 16}
    sample = ImageReader(configure(tmp_path, config), pixels()).read_file(store(tmp_path, image))
    assert sample.geometry is not None
    left, top, right, bottom = sample.geometry.box
    red = sample.feeds["pixel_values"][0, 0]
    rows, columns = np.nonzero(red > red.min() + 0.5 * (red.max() - red.min()))
    scale_x, scale_y = (right - left) / red.shape[1], (bottom - top) / red.shape[0]
    assert (left + columns.min() * scale_x, left + (columns.max() + 1) * scale_x) == (24, 40)
    assert (top + rows.min() * scale_y, top + (rows.max() + 1) * scale_y) == (8, 24)


def test_sample(tmp_path: Path) -> None:
    sample = reader(tmp_path).read_file(store(tmp_path, picture("RGBA")))
    assert (sample.id, sample.kind, sample.units) == ("cat", "image", None)
    assert sample.facts.size == (37, 53)
    assert sample.warnings == ()


def test_type_follows_the_graph(tmp_path: Path) -> None:
    half = pixels(dtype=np.dtype(np.float16))
    sample = ImageReader(configure(tmp_path, VIT), half).read_file(store(tmp_path, picture()))
    assert sample.feeds["pixel_values"].dtype == np.float16


def test_masks_of_pixels_keep_them_all(tmp_path: Path) -> None:
    config = configure(tmp_path, VIT)
    path = store(tmp_path, picture())
    for shape, expected in ((("b", "h", "w"), (1, 8, 8)), (("b", 64, 64), (1, 64, 64))):
        mask = GraphInput("pixel_mask", np.dtype(np.int64), shape, receives="mask")
        sample = ImageReader(config, [*pixels(), mask]).read_file(path)
        assert sample.feeds["pixel_mask"].shape == expected
        assert sample.feeds["pixel_mask"].all()


def test_fast_processors_are_reported(tmp_path: Path) -> None:
    fast = reader(tmp_path, image_processor_type="ViTImageProcessorFast")
    sample = fast.read_file(store(tmp_path, picture()))
    assert [warning.code for warning in sample.warnings] == ["resampling"]


def test_old_names_are_known(tmp_path: Path) -> None:
    config = {"feature_extractor_type": "ViTFeatureExtractor", "size": 8}
    path = store(tmp_path, picture())
    old = ImageReader(configure(tmp_path, config), pixels()).read_file(path)
    new = reader(tmp_path).read_file(path)
    np.testing.assert_array_equal(old.feeds["pixel_values"], new.feeds["pixel_values"])


def test_animation_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [picture(seed=seed).convert("P") for seed in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    sample = reader(tmp_path).read_file(path)
    assert [warning.code for warning in sample.warnings] == ["frames"]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [*pixels(), *pixels()],
        [*pixels(), GraphInput("input_ids", np.dtype(np.int64), None)],
        pixels(dtype=np.dtype(np.int64)),
        pixels(1, 3, 8),
        pixels(1, 4, 8, 8),
        pixels(1, 8, 8, 4),
    ],
)
def test_graphs_that_an_image_does_not_fit(tmp_path: Path, inputs: list[GraphInput]) -> None:
    with pytest.raises(InputError, match=r"\.npz"):
        ImageReader(configure(tmp_path, VIT), inputs)


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 3, 9, 8)])
def test_processed_size_that_does_not_fit_the_graph(tmp_path: Path, shape: tuple[int, ...]) -> None:
    wrong = ImageReader(configure(tmp_path, VIT), pixels(*shape))
    with pytest.raises(InputError, match="does not fit"):
        wrong.read_file(store(tmp_path, picture()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_processor_type": None}, "image_processor_type is missing"),
        ({"image_processor_type": "OtherImageProcessor"}, "known are ViTImageProcessor"),
        ({"image_processor_type": "VivitImageProcessor"}, "one frame"),
        ({"image_processor_type": "Swin2SRImageProcessor", "pad_size": 16}, "versions"),
        ({"image_processor_type": "Swin2SRImageProcessor", "do_resize": True}, "do_resize"),
        ({"image_processor_type": "DonutImageProcessor", "do_align_long_axis": True}, "align_long"),
        ({"image_processor_type": "DetrImageProcessor", "pad_size": {"height": 8}}, "pad_size"),
        ({"image_processor_type": "SamImageProcessor"}, "longest edge"),
        ({"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True}, "offset"),
        ({"image_processor_type": "DPTImageProcessor", "do_pad": True}, "do_pad"),
        ({"do_pad": True}, "do_pad"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"image_processor_type": "ConvNextImageProcessor", "do_center_crop": True}, "do_center"),
        ({"do_resize": "yes"}, "do_resize"),
        ({"do_rescale": 1}, "do_rescale"),
        ({"size": {"shortest_edge": 8}}, "size"),
        ({"size": {"height": 8}}, "size"),
        ({"size": [8, 8, 8]}, "size"),
        ({"size": 0}, "size"),
        ({"size": True}, "size"),
        ({"size": 1 << 40}, "size"),
        ({"size": "8"}, "size"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "shortest edge"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 8, "crop_pct": 0}, "crop_pct"),
        ({"image_processor_type": "CLIPImageProcessor", "crop_size": "x"}, "crop_size"),
        (
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 8, "longest_edge": 9},
            },
            "shortest edge",
        ),
        ({"resample": 9}, "resample"),
        ({"resample": "bicubic"}, "resample"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"rescale_factor": float("nan")}, "rescale_factor"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
    ],
)
def test_configurations_that_cannot_be_followed(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        reader(tmp_path, **changes)


def test_configuration_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        ImageReader(tmp_path / "preprocessor_config.json", pixels())
    with pytest.raises(InputError, match="JSON object"):
        ImageReader(configure(tmp_path, [1]), pixels())
    (tmp_path / "config.json").write_text('{"num_channels": "three"}')
    with pytest.raises(InputError, match="three"):
        ImageReader(configure(tmp_path, VIT), pixels("batch", "channels", 8, 8))


def test_files_that_are_no_images(tmp_path: Path) -> None:
    read = reader(tmp_path).read_file
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none.png")
    for number, data in enumerate((b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8")):
        (tmp_path / f"{number}.png").write_bytes(data)
        with pytest.raises(InputError, match="not a readable image"):
            read(tmp_path / f"{number}.png")
    picture().save(tmp_path / "tiff.png", "TIFF")
    with pytest.raises(InputError, match=r"not a readable image.*: it begins as none"):
        read(tmp_path / "tiff.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_truncated_images(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, kind)
    path = tmp_path / "cut.png"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(InputError, match="not a readable image"):
        reader(tmp_path).read_file(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]))
def test_damaged_images_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    buffer = io.BytesIO()
    picture(size=(9, 7)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged.png").write_bytes(content)
    try:
        sample = reader(folder).read_file(folder / "damaged.png")
    except InputError:
        return
    assert sample.feeds["pixel_values"].shape == (1, 3, 8, 8)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 60_000])
def test_bombs_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match="more than 89,478,485 pixels"):
        reader(tmp_path).read_file(tmp_path / "bomb.png")


def test_elongated_images_do_not_blow_up(tmp_path: Path) -> None:
    clip = {"image_processor_type": "CLIPImageProcessor"}
    path = store(tmp_path, Image.new("RGB", (1, 4000)))
    with pytest.raises(InputError, match="elongated"):
        ImageReader(configure(tmp_path, {**clip, "size": 224}), pixels()).read_file(path)
    with pytest.raises(InputError, match="elongated"):
        ImageReader(
            configure(tmp_path, {**clip, "size": 2, "crop_size": 1 << 19}), pixels()
        ).read_file(path)


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_FILE_LIMIT", 64)
    with pytest.raises(InputError, match="larger than"):
        reader(tmp_path).read_file(store(tmp_path, picture()))


def test_deep_channels_are_refused(tmp_path: Path) -> None:
    path = store(tmp_path, Image.fromarray(np.full((8, 8), 40_000, np.uint16)))
    with pytest.raises(InputError, match="8 bits"):
        reader(tmp_path).read_file(path)


# --- other layouts and types --------------------------------------------------------------------


def test_channels_may_come_last(tmp_path: Path) -> None:
    path = store(tmp_path, picture())
    first = reader(tmp_path).read_file(path).feeds["pixel_values"]
    other = ImageReader(configure(tmp_path, VIT), pixels("batch", 8, 8, 3))
    last = other.read_file(path).feeds["pixel_values"]
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first)


def test_pixels_may_be_bytes(tmp_path: Path) -> None:
    path = store(tmp_path, picture(size=(8, 8)))
    raw = {**VIT, "do_rescale": False, "do_normalize": False}
    given = pixels("batch", 8, 8, 3, dtype=np.dtype(np.uint8))
    sample = ImageReader(configure(tmp_path, raw), given).read_file(path)
    (array,) = sample.feeds.values()
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array[0], np.asarray(Image.open(path).convert("RGB")))
    with pytest.raises(InputError, match="do not fit"):
        ImageReader(configure(tmp_path, VIT), given).read_file(path)
