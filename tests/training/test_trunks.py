"""Trunks: each really learns, exports, and takes published weights by their names; the registry refuses by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.drawn_faces import GENERATORS, recipe
from unmask_training import torchvision_shim
from unmask_training.data.chips import Chips
from unmask_training.detector.batches import Batches
from unmask_training.detector.network import Detector
from unmask_training.detector.plain_graph import PARITY, write_plain
from unmask_training.detector.recipe import Recipe
from unmask_training.detector.trainer import Trainer
from unmask_training.trunks import SPECS, Trunk, build, load
from unmask_training.trunks.efficientnet_lite import _Halving
from unmask_training.trunks.npr import residual
from unmask_training.trunks.spectrum import radial_log_power

SIZE = 64
# Views of 64 pixels: what each trunk makes of them.
SHAPES = {
    "mobilenet_v2": (1280, 2, 2),
    "efficientnet_lite0": (1280, 2, 2),
    "resnet18": (512, 2, 2),
    "resnet50": (2048, 2, 2),
    "resnext101": (2048, 2, 2),
    "swin_t": (768, 2, 2),
    "xception": (2048, 2, 2),
    "vit_tiny": (192, 4, 4),
    "mesoinception4": (16, 2, 2),
    "mlp": (256, 1, 1),
    "cnn": (256, 4, 4),
    "patch_resnet18": (64, 16, 16),
    "patch_xception": (256, 8, 8),
    "npr": (512, 8, 8),
    "spectrum": (88, 1, 1),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def fitted(name: str, data: Path, steps: int = 2) -> tuple[Detector, dict[str, Tensor], list[float]]:
    """A detector on the trunk after a few steps, its state before them, and the losses."""
    told = Recipe.of(recipe(size=SIZE, batch=4, trunk=name, learning_rate=1e-3))
    trainer, batch = Trainer(told, GENERATORS), Batches(Chips(data), told).draw(0)
    before = {key: value.clone() for key, value in trainer.network.trunk.state_dict().items()}
    losses = [trainer.fit_step(*batch) for _ in range(steps)]
    return trainer.network, before, losses


def moved(network: Detector, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in network.trunk.state_dict().items() if not value.equal(before[name])}


def test_every_trunk_is_tested() -> None:
    assert SHAPES.keys() == SPECS.keys()


@pytest.mark.parametrize("name", SHAPES)
def test_it_learns_and_exports(name: str, data: Path, tmp_path: Path) -> None:
    network, before, losses = fitted(name, data)
    assert np.isfinite(losses).all()
    changed, trunk = moved(network, before), network.trunk
    assert changed >= {key for key, part in trunk.named_parameters() if part.requires_grad}
    assert not changed & {key for key, part in trunk.named_parameters() if not part.requires_grad}
    network.eval()
    with torch.no_grad():
        maps = network.maps(torch.randint(0, 256, (2, 3, SIZE, SIZE)).float())
    assert maps.shape == (2, *SHAPES[name]) and trunk.channels == SHAPES[name][0]
    assert maps[0].sub(maps[1]).abs().max() > 0  # it looks at the picture
    assert write_plain(network, SIZE, tmp_path / "plain.onnx") <= PARITY


@pytest.mark.parametrize("name", ["mobilenet_v2:frozen", "resnet18:layer4", "swin_t:frozen"])
def test_what_is_frozen_stays_with_its_statistics(name: str, data: Path) -> None:
    network, before, _ = fitted(name, data)
    changed = moved(network, before)
    expected = {key for key in before if key.startswith("layer4.")} if name.endswith("layer4") else set()
    assert changed == expected


def test_other_sizes_than_the_grid_of_the_transformer_are_interpolated() -> None:
    trunk = build("vit_tiny").eval()
    with torch.no_grad():
        trunk.positions.copy_(trunk.positions[:, :1].expand(-1, 144, -1))  # the same everywhere is the same on any grid
        picture = torch.rand(1, 3, 192, 192)
        torch.testing.assert_close(trunk._positions(5, 7), trunk.positions[:, :35])
        assert trunk(picture).shape == (1, 192, 12, 12) and trunk(picture[..., :80, :112]).shape == (1, 192, 5, 7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet51", r"trunk 'resnet51' is unknown; there are: cnn, efficientnet_lite0, .*, xception"),
        ("", "trunk '' is unknown"),
        ("resnet18:layer3", "trunk resnet18: no option 'layer3'; there are: all, layer4, frozen"),
        ("cnn:frozen", "trunk cnn: no option 'frozen'; there are: all"),
    ],
)
def test_unknown_names_are_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(name)


def test_a_perceptron_refuses_a_size_it_cannot_shrink() -> None:
    with pytest.raises(ValueError, match="mlp: needs a size that is a multiple of 32, not 48"):
        build("mlp").eval()(torch.zeros(1, 3, 48, 48))


def torchvision(name: str) -> nn.Module:
    torchvision_shim.install()
    from torchvision import models

    torch.manual_seed(3)
    model: nn.Module = getattr(models, name)(weights=None).eval()
    return model


def ours(name: str, state: dict[str, Tensor]) -> Trunk:
    torch.manual_seed(4)
    trunk = build(name).eval()
    load(trunk, state, "weights.pth")
    return trunk


@pytest.mark.parametrize(("name", "head"), [("mobilenet_v2", "classifier"), ("resnet18", "fc"), ("swin_t", "head")])
def test_torchvisions_weights_give_torchvisions_answers(name: str, head: str) -> None:
    theirs, picture = torchvision(name), torch.randn(2, 3, SIZE, SIZE)
    trunk = ours(name, theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(getattr(theirs, head)(trunk(picture).mean((2, 3))), theirs(picture))


def test_a_patch_model_takes_the_whole_networks_weights() -> None:
    theirs, picture = torchvision("resnet18"), torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        early = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(picture)))))
        torch.testing.assert_close(ours("patch_resnet18", theirs.state_dict())(picture), early)


def test_the_shipped_names_are_torchvisions() -> None:
    names = {f"features.{name}" for name in build("mobilenet_v2").state_dict()}
    assert "features.0.0.weight" in names
    assert names == {name for name in torchvision("mobilenet_v2").state_dict() if name.startswith("features.")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("conv1.weight"), r"weights.pth: not the weights of this trunk: lacks conv1\.weight$"),
        (
            lambda state: state.update({"layer5.a": torch.zeros(1), "layer5.b": torch.zeros(1)}),
            r"also has layer5\.a and 1 more",
        ),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), r"has another shape of bn1\.bias"),
    ],
)
def test_other_weights_are_refused(change: Callable[[dict[str, Tensor]], object], words: str) -> None:
    state = dict(torchvision("resnet18").state_dict())
    change(state)
    with pytest.raises(ValueError, match=words):
        ours("resnet18", state)


def published_lite0() -> dict[str, Tensor]:
    """A state dict of the names and shapes of efficientnet-lite0-57934424.pth, drawn at random."""
    state: dict[str, Tensor] = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}

    def layer(conv: str, norm: str, *shape: int) -> None:
        state[f"{conv}.weight"] = torch.randn(shape)
        state.update(
            {f"{norm}.{name}": torch.rand(shape[0]) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")}
        )
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    widths = [32, 16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]
    kernels = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
    for i, kernel in enumerate(kernels):
        block, inner = f"_blocks.{i}", widths[i] * (6 if i else 1)
        if i:
            layer(f"{block}._expand_conv", f"{block}._bn0", inner, widths[i], 1, 1)
        layer(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel, kernel)
        layer(f"{block}._project_conv", f"{block}._bn2", widths[i + 1], inner, 1, 1)
    layer("_conv_head", "_bn1", 1280, 320, 1, 1)
    return state


def test_every_published_tensor_of_the_lite_network_finds_its_place() -> None:
    state = published_lite0()
    trunk = ours("efficientnet_lite0", state)
    assert len(trunk.state_dict()) == len(state) - 2  # but the classifier's
    places = {"_blocks.1._bn0.bias": "blocks.1.expand.norm.bias", "_bn1.running_var": "top.norm.running_var"}
    places |= {"_blocks.15._project_conv.weight": "blocks.15.project.conv.weight", "_conv_stem.weight": "stem.conv.weight"}
    for theirs, here in places.items():
        assert trunk.state_dict()[here].equal(state[theirs])
    strides = [block.depthwise.conv.stride[0] for block in trunk.blocks]
    assert strides == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(("side", "kernel", "before", "after"), [(8, 3, 0, 1), (8, 5, 1, 2), (7, 3, 1, 1), (7, 5, 2, 2)])
def test_halving_pads_as_tensorflow_does(side: int, kernel: int, before: int, after: int) -> None:
    conv, maps = _Halving(1, 1, kernel, 2, bias=False), torch.randn(1, 1, side, side)
    padded = nn.functional.pad(maps, (before, after, before, after))
    torch.testing.assert_close(conv(maps), nn.functional.conv2d(padded, conv.weight, stride=2))


def test_xception_has_the_published_size_and_names() -> None:
    state = build("xception").state_dict()
    learnt = sum(value.numel() for name, value in state.items() if "running" not in name and "tracked" not in name)
    assert learnt == 22_855_952 - 2_049_000  # all of it but the classifier
    assert state["block1.rep.0.conv1.weight"].shape == (64, 1, 3, 3) and "block1.rep.5.weight" not in state
    assert state["block12.rep.4.pointwise.weight"].shape == (1024, 728, 1, 1)
    as_matrices = {name: value[:, :, 0, 0] if "pointwise" in name else value for name, value in state.items()}
    load(build("xception"), as_matrices | {"fc.weight": torch.zeros(1000, 2048)}, "weights.pth")
    early = ours("patch_xception", as_matrices)
    assert early.state_dict()["block2.rep.1.pointwise.weight"].equal(state["block2.rep.1.pointwise.weight"])


def test_the_residual_is_what_nearest_neighbours_cannot_bring_back() -> None:
    small = torch.randn(1, 3, 4, 5)
    assert residual(nn.functional.interpolate(small, scale_factor=2.0, mode="nearest")).abs().max() == 0
    square = torch.tensor([[1.0, 3.0, 9.0], [6.0, 10.0, 9.5]])[None, None]
    assert residual(square).tolist() == [[[[0.0, 2.0, 0.0], [5.0, 9.0, 0.5]]]]


def test_the_radial_spectrum_is_that_of_the_fast_transform() -> None:
    size = 176  # as many rings as features, so nothing is interpolated
    grey = np.random.default_rng(0).random((2, size, size))
    power = np.abs(np.fft.fft2(grey)) ** 2 / size**2
    wave = np.abs(np.fft.fftfreq(size, 1.0 / size))
    ring = np.rint(np.hypot(wave[:, None], wave[None, :]))
    expected = np.log(np.stack([power[:, ring == r].mean(1) for r in range(size // 2)], axis=1))
    found = radial_log_power(torch.from_numpy(grey).float()).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_spectrum_shows_a_grating_at_its_frequency_whatever_the_size() -> None:
    peaks = []
    for size in (64, 192):
        grating = 0.5 + 0.2 * torch.cos(2.0 * torch.pi * 0.25 * torch.arange(size)).expand(1, size, size)
        peaks.append(int(radial_log_power(grating)[0, 1:].argmax()) + 1)
    assert all(abs(peak - 44) <= 1 for peak in peaks), peaks  # a quarter of the sampling rate is half way to the last ring
