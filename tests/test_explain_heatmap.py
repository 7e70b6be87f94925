"""Heat maps: the graph read from a file's bytes, patches followed exactly, occlusion, and faithfulness to the model."""

from dataclasses import replace

import numpy as np
import pytest

from block_models import PATCH, SIDE, SIZE, block_card, write_block_model
from conftest import make_card, write_model
from faceauth import model_graph
from faceauth.explain import heatmap
from faceauth.model_file import Calibration, ModelFile, Outputs
from faceauth.preprocess import PreprocessSpec


@pytest.fixture(scope="module")
def block_model(tmp_path_factory):
    return ModelFile(write_block_model(tmp_path_factory.mktemp("blocks") / "blocks.onnx"))


def red_corner(patch=(0, 0)):
    """Black, but for one red patch."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    y, x = patch[0] * PATCH, patch[1] * PATCH
    pixels[y : y + PATCH, x : x + PATCH, 0] = 255
    return pixels


def test_the_tokens_of_blocks_are_found_in_the_bytes_of_a_file(block_model):
    found = model_graph.find(block_model.path.read_bytes())
    assert found == model_graph.BlockTensors(("tokens_0", "tokens_1"), "parts_weight")


@pytest.mark.slow
def test_the_shipped_model_has_twelve_blocks_and_answers_as_without_them():
    model = ModelFile()
    pixels = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    inside = model.inside(pixels)
    assert inside.tokens.shape == (12, 197, 768) and inside.weight.shape == (12, 3, 768, 2)
    outputs = model.run(pixels)
    np.testing.assert_allclose(inside.outputs.parts, outputs.parts, rtol=1e-5)
    features = np.stack(
        [inside.tokens[:, 0], inside.tokens[:, 1:].mean(1), inside.tokens[:, 1:].std(1, ddof=1)], axis=1
    )
    blurred = model.inside(pixels * 0.1)
    other = np.stack(
        [blurred.tokens[:, 0], blurred.tokens[:, 1:].mean(1), blurred.tokens[:, 1:].std(1, ddof=1)], axis=1
    )
    change = np.einsum("bsw,bswk->k", features - other, inside.weight)
    np.testing.assert_allclose(change, inside.outputs.parts[0] - blurred.outputs.parts[0], atol=2e-3)


@pytest.mark.parametrize(
    "data", [b"", b"abc", b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\x3b" * 40, b"\xff" * 100, b"\x3a\x02\x0a\x7f"]
)
def test_bytes_that_are_no_model_hold_no_blocks(data):
    assert model_graph.find(data) is None


def test_a_model_cut_short_holds_no_blocks_or_the_same(block_model):
    data = block_model.path.read_bytes()
    whole = model_graph.find(data)
    assert {model_graph.find(data[:n]) for n in range(0, len(data), 7)} <= {None, whole}


def test_a_network_of_another_making_has_nothing_inside(model_path):
    model = ModelFile(model_path)
    assert model_graph.find(model_path.read_bytes()) is None
    assert model.inside(np.zeros((1, 3, 32, 32), np.float32)) is None


@pytest.mark.parametrize("corner", [(0, 0), (0, SIDE - 1), (SIDE - 1, 0), (2, 1)])
def test_the_evidence_lies_in_the_patch_that_the_logit_comes_from(block_model, corner):
    found = heatmap.evidence(block_model, red_corner(corner))
    assert found.method == "patches"
    assert np.unravel_index(found.values.argmax(), found.values.shape) == corner
    assert found.logit == pytest.approx(3 * 6 / SIDE**2 - 3)


def test_the_parts_of_all_patches_make_up_the_logit(block_model):
    found = heatmap.evidence(block_model, red_corner((1, 2)))
    assert found.values.sum() == pytest.approx(found.logit)
    others = np.delete(found.values.ravel(), SIDE + 2)
    np.testing.assert_allclose(others, -3 / SIDE**2, atol=1e-6)  # the bias, spread over all patches
    assert found.values[1, 2] - others[0] == pytest.approx(18 / SIDE**2)


@pytest.mark.parametrize(("weight", "fall"), [(6.0, 1), (-6.0, -1)])
def test_what_the_strongest_fifth_is_worth_is_read_from_the_network(tmp_path, weight, fall):
    """Three of sixteen patches are red; without them only what the blur leaves of red moves the logit from the bias."""
    model = ModelFile(write_block_model(tmp_path / "b.onnx", of_mean=(weight, 0.0, 0.0), bias=0.0))
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[: 3 * PATCH, :PATCH, 0] = 255
    found = heatmap.evidence(model, pixels)
    assert found.logit == pytest.approx(fall * 3 * 18 / SIDE**2)
    without = heatmap.blurred(pixels)
    left = fall * 18 * without[: 3 * PATCH, :PATCH, 0].mean() / 255 * 3 / SIDE**2
    assert found.strongest == pytest.approx(found.logit - left, rel=1e-3)


def test_the_side_is_that_of_the_calibrated_score_and_its_fifth_is_blurred(tmp_path):
    """A logit of -0.3, which the calibration calls more likely fake: what speaks for fake, the red patch, goes."""
    card = block_card(calibration=Calibration(shift=1.0))
    model = ModelFile(write_block_model(tmp_path / "b.onnx", bias=-0.3 - 18 / SIDE**2, card=card))
    found = heatmap.evidence(model, red_corner((1, 1)))
    assert found.logit == pytest.approx(-0.3, abs=1e-4) and found.side == "fake" and found.strongest > 0.2


def test_of_two_heads_the_one_that_gave_the_logit_is_read(monkeypatch, block_model):
    """Where a blurred copy passes by the head for swaps, that is no fall of the logit that the map shows."""
    whole = heatmap.evidence(block_model, red_corner((1, 1)))
    run = ModelFile.inside

    def swapped(self, pixels):
        inside = run(self, pixels)
        if float(inside.parts[0]) < whole.logit - 1e-3:  # the blurred copy
            inside = replace(inside, outputs=replace(inside.outputs, logit=np.array([7.0], np.float32)))
        return inside

    monkeypatch.setattr(ModelFile, "inside", swapped)
    found = heatmap.evidence(block_model, red_corner((1, 1)))
    assert found.strongest == pytest.approx(whole.strongest) and found.placed == 1.0
    one = Outputs(*(np.zeros((1, 2)),) * 3, parts=np.array([[-4.0, 5.0]]))
    assert heatmap.head_of(replace(one, logit=np.array([5.0]))) == 1
    assert heatmap.head_of(replace(one, logit=np.array([-4.0]))) == 0
    assert heatmap.head_of(replace(one, parts=None)) is None


@pytest.mark.parametrize(("share", "count"), [(0.2, 3), (0.01, 1), (1.0, 16)])
def test_the_strongest_cells_are_the_largest_ones(share, count):
    values = np.random.default_rng(1).permutation(16).reshape(4, 4)
    chosen = heatmap.strongest_of(values, 8, share)[::2, ::2, 0]
    assert sorted(values[chosen]) == list(range(16 - count, 16))


def test_evidence_for_real_is_negative(tmp_path):
    model = ModelFile(write_block_model(tmp_path / "b.onnx", of_mean=(-6.0, 0.0, 0.0)))
    found = heatmap.evidence(model, red_corner((1, 2)))
    assert np.unravel_index(found.values.argmin(), found.values.shape) == (1, 2)


def test_what_the_class_token_holds_has_no_place(tmp_path):
    for of_class, placed in ((0.0, 1.0), (6.0, 0.5), (18.0, 0.25)):
        model = ModelFile(write_block_model(tmp_path / f"{of_class}.onnx", of_class=(of_class, 0.0, 0.0)))
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        pixels[::3] = 255
        assert heatmap.evidence(model, pixels).placed == pytest.approx(placed, abs=0.01)


def test_tokens_that_do_not_make_up_the_logit_are_not_believed(tmp_path):
    model = ModelFile(write_block_model(tmp_path / "b.onnx", of_deviation=(40.0, 0.0, 0.0), ddof=12))
    assert heatmap.evidence(model, red_corner()).method == "occlusion"


def test_without_patches_cells_are_occluded(tmp_path):
    pattern = np.zeros((64, 64))
    pattern[:16, 48:] = 16
    card = make_card(preprocess=PreprocessSpec(size=64))
    model = ModelFile(write_model(tmp_path / "corner.onnx", card, pattern))
    pixels = np.random.default_rng(0).integers(0, 60, (64, 64, 3), np.uint8)
    pixels[4:12, 52:60] = 255
    found = heatmap.evidence(model, pixels)
    assert found.method == "occlusion" and found.placed is None and found.values.shape == (3, 3)
    assert np.unravel_index(np.abs(found.values).argmax(), found.values.shape) == (0, 2)
    assert np.abs(found.values[1:, :2]).max() < 1e-4
    assert found.values[0, 0] == pytest.approx(found.values[0, 2] / 2, rel=1e-3)  # its row, and not its column


def test_a_map_lies_on_the_picture_as_it_stands(block_model):
    upright = heatmap.heat_map(
        heatmap.evidence(block_model, red_corner((0, 1))), (0.0, 0.0, 8.0, 8.0), 0, Calibration()
    )
    turned = heatmap.heat_map(
        heatmap.evidence(block_model, np.rot90(red_corner((0, 1))).copy()), (0.0, 0.0, 8.0, 8.0), 1, Calibration()
    )
    np.testing.assert_allclose(turned.values, upright.values, atol=0.05)
    assert np.abs(upright.values).max() == 1


def test_a_map_says_what_the_score_is_without_its_strongest_part(block_model):
    calibration = Calibration(2.0, 1.0)
    found = heatmap.evidence(block_model, red_corner())
    told = heatmap.heat_map(found, (0.0, 0.0, 8.0, 8.0), 0, calibration)
    score, without = calibration(np.array([found.logit, found.logit - found.strongest]))
    assert (told.score, told.without) == pytest.approx((score, without), abs=1e-4) and told.score != told.without


def test_a_picture_of_one_colour_has_a_map_of_numbers(block_model):
    found = heatmap.heat_map(
        heatmap.evidence(block_model, np.full((SIZE, SIZE, 3), 90, np.uint8)), (0.0, 0.0, 8.0, 8.0), 0, Calibration()
    )
    assert np.isfinite(found.values).all() and found.placed is None and found.strongest == pytest.approx(0, abs=1e-3)


def test_a_model_file_with_blocks_keeps_its_outputs_and_its_hash(block_model):
    assert block_model.card == block_card() and block_model.size == block_model.path.stat().st_size
    assert block_model.embedding_size == 2 and block_model.has_parts
