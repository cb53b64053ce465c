"""The evaluators: encoders that take no part in conditioning or losses, and what they read from pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ccfexp import weights
from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.data.phantom.expression import MOVEMENTS, SIDES
from ccfexp.encoders import PhantomEncoder, config_from_metadata, landmarks_from_vector, load_phantom_encoder
from ccfexp.evaluation.cases import HeldOutCases
from ccfexp.evaluation.metrics import landmark_nme, psnr, ssim
from ccfexp.evaluation.scores import CaseScores, ModelScores
from ccfexp.model import CCFExp
from ccfexp.training import encode_images, stratified_timesteps, to_unit_range

IDENTITY, EXPRESSION = "evaluator-identity", "evaluator-expression"
_MOVEMENT_NAMES: Final = tuple(MOVEMENTS)


@dataclass(frozen=True)
class Reading:
    """What the evaluators read from N pictures."""

    side_N: tuple[str, ...]
    laterality_N: tuple[str, ...]  # the more affected side when "none" is no answer
    severity_N: Tensor
    movement_N: tuple[str, ...]
    landmark_N682: Tensor  # fractions of the image side
    identity_ND: Tensor


@dataclass(frozen=True)
class Evaluators:
    """One network for identity, one for side, severity, movement and landmarks."""

    identity: PhantomEncoder = field(repr=False)
    expression: PhantomEncoder = field(repr=False)
    heads: dict[str, Tensor] = field(repr=False)

    @classmethod
    def load(cls) -> "Evaluators":
        """The shipped evaluators.

        Raises:
            WeightsError: missing or altered.
        """
        tensors, _ = weights.load(EXPRESSION)
        heads = {key.removeprefix("head."): value for key, value in tensors.items() if key.startswith("head.")}
        return cls(load_phantom_encoder(IDENTITY), load_phantom_encoder(EXPRESSION), heads)

    @torch.no_grad()
    def read(self, image_N3HW: Tensor) -> Reading:
        """Read pictures in [-1, 1]."""
        vector_ND = torch.cat([self.expression(part).vector_BD for part in image_N3HW.split(128)])
        identity_ND = torch.cat([self.identity(part).vector_BD for part in image_N3HW.split(128)])
        side_N3 = self._head("expression.side", vector_ND)
        return Reading(
            side_N=tuple(SIDES[k] for k in side_N3.argmax(1).tolist()),
            laterality_N=tuple(SIDES[1 + k] for k in side_N3[:, 1:].argmax(1).tolist()),
            severity_N=self._head("expression.severity", vector_ND).mean(1),
            movement_N=tuple(
                _MOVEMENT_NAMES[k] for k in self._head("expression.movement", vector_ND).argmax(1).tolist()
            ),
            landmark_N682=landmarks_from_vector(self._head("landmark", vector_ND)),
            identity_ND=identity_ND,
        )

    def _head(self, name: str, vector_ND: Tensor) -> Tensor:
        return functional.linear(vector_ND, self.heads[f"{name}.weight"], self.heads[f"{name}.bias"])


def evaluated_size() -> int:
    """Side in pixels of the pictures that the evaluators read.

    Raises:
        WeightsError: missing or altered.
    """
    return config_from_metadata(weights.load(EXPRESSION)[1], EXPRESSION).image_size


def judge(name: str, image_C3HW: Tensor, cases: HeldOutCases, evaluators: Evaluators) -> ModelScores:
    """Score pictures in [-1, 1] against the cases they were drawn for."""
    reading = evaluators.read(image_C3HW)
    person = evaluators.read(to_unit_range(cases.identity_C3HW)).identity_ND
    similarity_C = functional.cosine_similarity(reading.identity_ND, person).tolist()
    stranger = evaluators.read(to_unit_range(cases.expression_C3HW)).identity_ND
    leak_C = functional.cosine_similarity(reading.identity_ND, stranger).tolist()
    target = to_unit_range(cases.target_C3HW)
    size = image_C3HW.shape[-1]
    nme_C = landmark_nme(reading.landmark_N682.numpy() * size, cases.landmark_C682)
    ssim_C = ssim(image_C3HW, target, data_range=2.0)
    # Identical pictures have an infinite ratio; 100 dB stands for it, beyond anything that 8-bit pictures can show.
    psnr_C = np.minimum(psnr(image_C3HW, target, data_range=2.0), 100.0)
    return ModelScores(
        name,
        tuple(
            CaseScores(
                subject=cases.subject_C[c],
                true_side=cases.side_C[c],
                predicted_side=reading.side_N[c],
                true_severity=cases.severity_C[c],
                predicted_severity=float(reading.severity_N[c]),
                nme=float(nme_C[c]),
                ssim=float(ssim_C[c]),
                psnr=float(psnr_C[c]),
                identity_similarity=similarity_C[c],
                movement_correct=reading.movement_N[c] == cases.movement_C[c],
                laterality=reading.laterality_N[c],
                grade=cases.grade_C[c],
                stranger_similarity=leak_C[c],
            )
            for c in range(len(cases))
        ),
    )


def case_features(model: CCFExp, cases: HeldOutCases) -> tuple[IdentityFeatures, ExpressionFeatures]:
    """Frozen features of the cases' identity and expression photographs."""
    person = encode_images(model, cases.identity_C3HW)
    shown = encode_images(model, cases.expression_C3HW)
    return (
        IdentityFeatures(person["identity_ND"], person["identity_map_NCGG"]),
        ExpressionFeatures(shown["deviation_ND"], shown["landmark_map_NCGG"], shown["landmark_N136"]),
    )


def resting_features(model: CCFExp, cases: HeldOutCases) -> ExpressionFeatures:
    """The identity photographs' own expression: where guidance starts from."""
    person = encode_images(model, cases.identity_C3HW)
    return ExpressionFeatures(person["deviation_ND"], person["landmark_map_NCGG"], person["landmark_N136"])


@torch.no_grad()
def validation_loss(
    model: CCFExp, cases: HeldOutCases, features: tuple[IdentityFeatures, ExpressionFeatures], seed: int = 0
) -> float:
    """Denoising loss of the true targets at fixed timesteps and noise: cheap enough to follow every round."""
    generator = torch.Generator().manual_seed(seed)
    count, total = len(cases), 0.0
    t_C = stratified_timesteps(count, model.config.diffusion.steps, generator)
    eps_C = torch.randn(cases.target_C3HW.shape, generator=generator)
    for index in torch.arange(count).split(64):
        target, t_B, eps = (
            to_unit_range(cases.target_C3HW[index]).to(model.device),
            t_C[index].to(model.device),
            eps_C[index].to(model.device),
        )
        identity = IdentityFeatures(*(part[index].to(model.device) for part in features[0]))
        expression = ExpressionFeatures(*(part[index].to(model.device) for part in features[1]))
        prediction = model(model.diffusion.add_noise(target, eps, t_B), t_B, model.condition(identity, expression))
        error_B = (prediction - model.diffusion.target(target, eps, t_B)).square().flatten(1).mean(1)
        total += float((model.diffusion.loss_weight(t_B) * error_B).sum())
    return total / count


def case_indices(cases: HeldOutCases, wanted: Sequence[tuple[int, str]]) -> list[int]:
    """The first case of each wanted (grade, movement) pair that exists, in order, without repeats."""
    pairs = list(zip(cases.grade_C, cases.movement_C, strict=True))
    found = [pairs.index(pair) for pair in wanted if pair in pairs]
    return list(dict.fromkeys(found))
