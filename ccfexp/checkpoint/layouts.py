"""The published checkpoint layouts: how each is recognised, and where every one of its keys goes.

Nothing is skipped silently. A key is mapped, or left with a reason that the record of the import repeats, or it is an
error; a tensor that our networks need and the file does not hold is an error too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from ccfexp.conditioning import Conditioner
from ccfexp.errors import CheckpointError
from ccfexp.published.fusion_names import OFFICIAL_CONDITIONING, to_conditioner
from ccfexp.published.ir50 import IR50Encoder
from ccfexp.published.mobilefacenet import MobileFaceNet
from ccfexp.published.unet_names import OFFICIAL_UNET, projection_names, to_diffusers
from ccfexp.unet import CCFExpUNet

State = dict[str, Tensor]
# Parts of an import; each becomes a file.
UNET, CONDITIONER = "unet", "conditioner"
IDENTITY, RECOGNISER, NEUTRAL, FACE, LANDMARK = "identity", "recogniser", "neutral", "face", "landmark"
ENCODERS: Final[dict[str, Callable[[], nn.Module]]] = {
    IDENTITY: IR50Encoder, RECOGNISER: IR50Encoder, NEUTRAL: IR50Encoder, FACE: IR50Encoder,
    LANDMARK: lambda: MobileFaceNet("published"),
}  # fmt: skip


@dataclass
class Sorted:
    """Where the keys of a file went.

    Attributes:
        parts: our tensors by part.
        left: published key -> why it is not needed.
        problems: what keeps the file from being imported, a line each.
    """

    parts: dict[str, State] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def leave(self, names: list[str], reason: str) -> None:
        """These keys are not needed, for this reason."""
        self.left |= dict.fromkeys(names, reason)


def sort_keys(state: State, weights: str = "average") -> tuple[str, Sorted]:
    """The layout's name and where every key goes.

    Args:
        state: tensors by published names.
        weights: of a training checkpoint, the "average" of the U-Net's weights (what samples are drawn from) or the
            "last" ones.

    Raises:
        CheckpointError: no known layout, or keys that are missing, unexpected, or of the wrong shape (all listed).
    """
    layout = next((name for name, (mark, _) in _LAYOUTS.items() if any(key.endswith(mark) for key in state)), None)
    if layout is None:
        known = ", ".join(_LAYOUTS)
        raise CheckpointError(
            f"none of the {len(state)} keys marks a known layout ({known}); the first key is {min(state)!r}. "
            "Give one of these checkpoints"
        )
    found = Sorted()
    _LAYOUTS[layout][1](state, weights, found)
    if found.problems:
        shown = "\n  ".join(found.problems[:40])
        more = f"\n  and {len(found.problems) - 40} more" if len(found.problems) > 40 else ""
        raise CheckpointError(
            f"not the checkpoint that its keys announce ({layout}); nothing was written:\n  {shown}{more}"
        )
    return layout, found


def _strip(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _trainer(state: State, weights: str, found: Sorted) -> None:
    """The whole training module of CCFExp: 2,943 keys."""
    average, last = "ema_model.averaged_model.", "model."
    taken, other = (average, last) if weights == "average" else (last, average)
    _take_unet(_strip(state, taken), taken, found)
    found.leave(
        [name for name in state if name.startswith(other)], f"the U-Net's weights are taken from {taken.rstrip('.')}"
    )
    fusion = ("label_mapping.pos_emb.", "label_mapping.scaler.", "emotion_adapter.", "condition_adapter.")
    _take_fusion({name: value for name, value in state.items() if name.startswith(fusion)}, found)
    _take_projection(state, found)
    for part, prefix in (
        (IDENTITY, "label_mapping.backbone."), (RECOGNISER, "recognition_model."), (FACE, "face_model."),
        (NEUTRAL, "id_model."), (LANDMARK, "landmark_detector."),
    ):  # fmt: skip
        _take_encoder(part, _strip(state, prefix), prefix, found)
    known = (
        *fusion, average, last, "cross_attn_adapter.", "label_mapping.backbone.", "recognition_model.", "face_model.",
        "id_model.", "landmark_detector.",
    )  # fmt: skip
    _refuse([name for name in state if not name.startswith(known)], found)


def _dcface(state: State, _weights: str, found: Sorted) -> None:
    """DCFace: the U-Net that CCFExp starts from; everything else is another model's."""
    _take_unet(_strip(state, "model."), "model.", found)
    found.leave(
        [name for name in state if not name.startswith("model.")],
        "belongs to DCFace's own conditions; CCFExp starts from its U-Net",
    )


def _adaface(state: State, _weights: str, found: Sorted) -> None:
    """AdaFace: keys that contain ``model.`` are the backbone."""
    backbone = {"backbone." + name.replace("model.", "", 1): value for name, value in state.items() if "model." in name}
    _take_encoder(IDENTITY, backbone, "model.", found)
    found.leave([name for name in state if "model." not in name], "class head of the recogniser's training")


def _affectnet(state: State, _weights: str, found: Sorted) -> None:
    """The deviation network: ``backbone.`` and a class head."""
    head = [name for name in state if name.startswith("head.")]
    _take_encoder(FACE, {name: value for name, value in state.items() if name not in head}, "", found)
    found.leave(head, "class head of the deviation network's training")


def _mobilefacenet(state: State, _weights: str, found: Sorted) -> None:
    """The landmark detector, perhaps saved from several GPUs (``module.``)."""
    _take_encoder(LANDMARK, {name.removeprefix("module."): value for name, value in state.items()}, "", found)


# The mark is how some key of the layout ends; the order matters, since a training module contains the others.
_LAYOUTS: Final[dict[str, tuple[str, Callable[[State, str, Sorted], None]]]] = {
    "CCFExp": ("condition_adapter.att_id.kv.weight", _trainer),
    "DCFace": ("model.time_embed.0.weight", _dcface),
    "AdaFace IR-50": ("model.input_layer.0.weight", _adaface),
    "AffectNet deviation IR-50": ("backbone.input_layer.0.weight", _affectnet),
    "MobileFaceNet": ("conv1.conv.weight", _mobilefacenet),
}


def _refuse(names: list[str], found: Sorted) -> None:
    found.problems += [f"unexpected key {name!r}" for name in sorted(names)]


def _take_unet(state: State, prefix: str, found: Sorted) -> None:
    expected = _shapes(lambda: CCFExpUNet(**vars(OFFICIAL_UNET)))
    tensors: State = {}
    for name, value in state.items():
        mapped, unknown = to_diffusers({name: value}, OFFICIAL_UNET)
        _refuse([prefix + key for key in unknown], found)
        tensors |= mapped
    _check(tensors, {k: v for k, v in expected.items() if "condition_projection" not in k}, prefix, found)
    found.parts.setdefault(UNET, {}).update(tensors)


def _take_projection(state: State, found: Sorted) -> None:
    names = ("cross_attn_adapter.weight", "cross_attn_adapter.bias")
    missing = [name for name in names if name not in state]
    if missing:
        found.problems += [f"missing key {name!r}" for name in missing]
        return
    tensors = projection_names(state[names[0]], state[names[1]], OFFICIAL_UNET)
    expected = {"condition_projection.weight": (1024, 512), "condition_projection.bias": (1024,)}
    _check(tensors, expected, "cross_attn_adapter.", found)
    found.parts.setdefault(UNET, {}).update(tensors)


def _take_fusion(state: State, found: Sorted) -> None:
    try:
        tensors = to_conditioner(state)
    except KeyError as error:
        found.problems.append(f"missing key {error.args[0]!r}")
        return
    except IndexError:
        found.problems.append("the positions of the identity embedder or the emotion adapter have too few dimensions")
        return
    _check(tensors, _shapes(lambda: Conditioner(OFFICIAL_CONDITIONING)), "fusion ", found)
    found.parts[CONDITIONER] = tensors


def _take_encoder(part: str, state: State, prefix: str, found: Sorted) -> None:
    _check(state, _shapes(ENCODERS[part]), prefix, found)
    found.parts[part] = state


def _shapes(make: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network, without memory for its weights."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in make().state_dict().items()}


def _check(tensors: State, expected: dict[str, tuple[int, ...]], prefix: str, found: Sorted) -> None:
    """Every expected tensor is there with its shape, and no other."""
    found.problems += [f"missing {prefix}{name}" for name in sorted(expected.keys() - tensors.keys())]
    found.problems += [f"unexpected {prefix}{name}" for name in sorted(tensors.keys() - expected.keys())]
    found.problems += [
        f"{prefix}{name} has shape {tuple(tensors[name].shape)}, expected {expected[name]}"
        for name in sorted(expected.keys() & tensors.keys())
        if tuple(tensors[name].shape) != expected[name]
    ]
