"""CCFExp: this person making that palsied expression (arXiv 2409.07271).

A model is a frozen base (U-Net and conditioner) with frozen encoders; what a hospital trains is an adapter on the base.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dacite
import torch
from torch import Tensor, nn

from ccfexp import adapter
from ccfexp.adapter import AdapterConfig, AdapterState
from ccfexp.compute import ComputeConfig, prepare
from ccfexp.conditioning import Condition, Conditioner, ConditioningConfig, ExpressionFeatures, IdentityFeatures
from ccfexp.diffusion import Diffusion, DiffusionConfig
from ccfexp.encoders import Encoder
from ccfexp.errors import ConfigError, WeightsError
from ccfexp.frozen import freeze
from ccfexp.published.encoder_files import load_encoder
from ccfexp.published.fusion_names import OFFICIAL_CONDITIONING
from ccfexp.published.unet_names import OFFICIAL_UNET
from ccfexp.unet import CCFExpUNet, UNetConfig
from ccfexp.weights.base_files import RESTORE_BASE, read_base, read_base_metadata

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(frozen=True)
class EncoderNames:
    """Which encoders condition the model and judge its losses.

    Each is the name of shipped weights, or of a safetensors file beside the base (ends in ``.safetensors``).

    Attributes:
        neutral, recogniser: empty = the identity encoder (see ``FrozenEncoders``).
    """

    identity: str = "phantom-identity"
    face: str = "phantom-face"
    landmark: str = "phantom-landmark"
    neutral: str = ""
    recogniser: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the architecture; recorded beside the weights."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    conditioning: ConditioningConfig = field(default_factory=ConditioningConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    encoders: EncoderNames = field(default_factory=EncoderNames)

    def __post_init__(self) -> None:
        if self.unet.token_size != self.conditioning.token_size:
            raise ConfigError(
                f"unet.token_size={self.unet.token_size} must equal "
                f"conditioning.token_size={self.conditioning.token_size}"
            )
        if self.conditioning.style_size != 4 * self.unet.channels[0]:
            raise ConfigError(
                f"conditioning.style_size={self.conditioning.style_size} must be 4 x the first width, "
                f"{4 * self.unet.channels[0]}"
            )


# The published network and its fusion; its encoders come with an imported checkpoint.
OFFICIAL: Final = ModelConfig(
    unet=OFFICIAL_UNET,
    conditioning=OFFICIAL_CONDITIONING,
    diffusion=DiffusionConfig(rederive_noise=False),
    encoders=EncoderNames(
        **{name: f"{name}.safetensors" for name in ("identity", "face", "landmark", "neutral", "recogniser")}
    ),
)
PHANTOM: Final = ModelConfig(
    unet=UNetConfig(
        image_size=64, patch_size=4, channels=(96, 128), attention_levels=(1,), fixed_resolution_level=None,
        head_size=32, token_size=128, predicts_variance=False,
    ),
    conditioning=ConditioningConfig(style_size=384),
    diffusion=DiffusionConfig(prediction="sample", min_snr_gamma=5.0),
)  # fmt: skip


@dataclass(frozen=True)
class FrozenEncoders:
    """The frozen networks; never trained, never on the wire, identical at every site (checked by hash).

    Attributes:
        identity: who a photograph shows: tokens and style.
        face: whose vector minus the neutral one is the deviation.
        landmark: landmarks and their map.
        neutral: subtracted in the deviation; None = ``identity`` (the published code has a second copy).
        recogniser: judges identity in the loss; None = ``identity`` (the published embedder is another network).
    """

    identity: Encoder
    face: Encoder
    landmark: Encoder
    neutral: Encoder | None = None
    recogniser: Encoder | None = None

    @classmethod
    def load(cls, names: EncoderNames, folder: Path | None = None) -> "FrozenEncoders":
        """Encoders by name; files are looked for in ``folder``. One that is named twice is loaded once.

        Raises:
            WeightsError: missing or altered weights.
        """
        loaded: dict[str, Encoder] = {}
        for name in vars(names).values():
            if name and name not in loaded:
                loaded[name] = load_encoder(name, folder)
        optional = (loaded[name] if name else None for name in (names.neutral, names.recogniser))
        return cls(*(loaded[name] for name in (names.identity, names.face, names.landmark)), *optional)

    def to(self, device: torch.device | str) -> "FrozenEncoders":
        """The same encoders on a device."""
        return FrozenEncoders(
            *(_to(encoder, device) for encoder in (self.identity, self.face, self.landmark)),
            *(None if encoder is None else _to(encoder, device) for encoder in (self.neutral, self.recogniser)),
        )

    def identity_features(self, x_B3HW: Tensor) -> IdentityFeatures:
        """Features of identity photographs in [-1, 1]."""
        return IdentityFeatures(*self.identity(x_B3HW))

    def expression_features(self, x_B3HW: Tensor, neutral_BD: Tensor | None = None) -> ExpressionFeatures:
        """Deviation and landmark features of expression photographs; ``neutral_BD`` saves a pass if already known."""
        landmark = self.landmark(x_B3HW)
        return ExpressionFeatures(self.deviation(x_B3HW, neutral_BD), landmark.map_BCGG, landmark.vector_BD)

    def deviation(self, x_B3HW: Tensor, neutral_BD: Tensor | None = None) -> Tensor:
        """Face minus neutral vector [B,D] (Zhang et al., CVPR 2021); ``neutral_BD`` saves a pass if already known."""
        known = self.vectors(x_B3HW)[1] if neutral_BD is None else neutral_BD
        return self.face(x_B3HW).vector_BD - known

    def vectors(self, x_B3HW: Tensor, identity_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The recogniser's and the neutral vector [B,D], each network run once; ``identity_BD`` if already known."""
        found: dict[int, Tensor] = {} if identity_BD is None else {id(self.identity): identity_BD}
        wanted = [self.identity if other is None else other for other in (self.recogniser, self.neutral)]
        for encoder in wanted:
            if id(encoder) not in found:
                found[id(encoder)] = encoder(x_B3HW).vector_BD
        return found[id(wanted[0])], found[id(wanted[1])]


def _to(encoder: Encoder, device: torch.device | str) -> Encoder:
    return encoder.to(device) if isinstance(encoder, nn.Module) else encoder


class CCFExp(nn.Module):
    """The network: ``unet`` and ``conditioner`` are its modules, ``encoders`` and ``diffusion`` its constants.

    Attributes:
        base_sha256: hash of the base weights (of the file they came from; empty for fresh weights), without residual.
        folder: of that file, where its encoders lie too; None for a shipped base.
        compute: how the U-Net is computed on this machine.
    """

    def __init__(self, config: ModelConfig, encoders: FrozenEncoders) -> None:
        super().__init__()
        self.config = config
        self.unet = CCFExpUNet.build(config.unet)
        self.conditioner = Conditioner(config.conditioning)
        self.diffusion = Diffusion(config.diffusion)
        self.encoders = encoders
        self.base_sha256 = ""
        self.folder: Path | None = None
        self.adapter_layers: LoraConfig | None = None
        self._pristine: dict[str, Tensor] = {}  # weights of the base that a residual stands in for (ccfexp.residual)
        self.compute = ComputeConfig()

    @classmethod
    def from_base(cls, base: str | Path) -> "CCFExp":
        """A frozen base: the name of shipped weights, or the path of a safetensors file made by pretraining.

        Raises:
            WeightsError: missing, altered, or not a base.
        """
        file = read_base(base)
        config = config_from_json(file.metadata.get("model", ""), file.name)
        model = cls(config, FrozenEncoders.load(config.encoders, file.folder))
        try:
            model.load_state_dict(file.tensors)
        except RuntimeError as error:
            raise WeightsError(
                f"base weights {file.name!r} do not fit the model that their metadata names; {RESTORE_BASE}: {error}"
            ) from error
        model.base_sha256, model.folder = file.sha256, file.folder
        network: Any = freeze(model).unet
        network.to(memory_format=torch.channels_last)  # convolutions on a CPU are faster so
        return model

    def to(self, *args: Any, **kwargs: Any) -> "CCFExp":  # noqa: ANN401 (torch's own arguments)
        """As ``nn.Module.to``, and the encoders with it: they are no submodules, so nothing of them is ever trained."""
        super().to(*args, **kwargs)
        for encoder in vars(self.encoders).values():
            if isinstance(encoder, nn.Module):
                encoder.to(*args, **kwargs)
        return self

    def forward(self, x_t_B3HW: Tensor, t_B: Tensor, condition: Condition) -> Tensor:
        """Prediction [B,3,H,W] in the parametrisation of ``config.diffusion``."""
        with self.compute.autocast(x_t_B3HW.device):
            prediction: Tensor = self.unet.predict(x_t_B3HW, t_B, condition.token_BNT, condition.style_BE)
        return prediction.to(x_t_B3HW.dtype)

    def compute_as(self, config: ComputeConfig) -> None:
        """Choose how the U-Net is computed, once, on the device where it will be (ConfigError: it cannot there)."""
        network: Any = self.unet
        prepare(network, config)
        self.compute = config

    def condition(self, identity: IdentityFeatures, expression: ExpressionFeatures) -> Condition:
        """Fuse frozen features into what the U-Net reads."""
        fused: Condition = self.conditioner(identity, expression)
        return fused

    def attach_adapter(self, config: AdapterConfig, seed: int) -> None:
        """Freeze the base and put a fresh adapter on it.

        Its factors change nothing until they are trained; its bottleneck, where it has one, holds from now on.
        """
        if self.adapter_layers is not None:
            raise ConfigError("the model already has an adapter; load the base again to attach another")
        self.adapter_layers = adapter.attach(self, config, seed)
        self.conditioner.bottleneck = config.bottleneck

    def adapter_state(self) -> AdapterState:
        """The adapter's factors by peft's names, single precision, on the CPU; no residual of the base."""
        return adapter.adapter_state(self)

    def load_adapter_state(self, state: AdapterState) -> None:
        """Put factors into the attached adapter and their residual, or none, into the base.

        Raises:
            CheckpointError: they do not fit; nothing is changed then.
        """
        adapter.load_adapter_state(self, state, self._pristine)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


def config_of_base(base: str | Path) -> ModelConfig:
    """The architecture of a base, which is not loaded.

    Raises:
        WeightsError: missing, damaged, or not a base.
    """
    name, metadata = read_base_metadata(base)
    return config_from_json(metadata.get("model", ""), name)


def config_to_json(config: ModelConfig) -> str:
    """The architecture as it is recorded beside base weights."""
    return json.dumps(asdict(config), sort_keys=True)


def config_from_json(text: str, name: str) -> ModelConfig:
    """The architecture recorded beside base weights.

    Raises:
        WeightsError: the text is not such a record.
    """
    try:
        loaded: dict[str, Any] = json.loads(text)
        return dacite.from_dict(ModelConfig, loaded, dacite.Config(strict=True, cast=[tuple]))
    except (ValueError, dacite.DaciteError) as error:
        raise WeightsError(f"weights {name!r} do not say which model they belong to; give base weights") from error
