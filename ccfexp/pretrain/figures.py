"""Held-out figures of an encoder, for its model card: people that no training population contains."""

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from ccfexp.encoders import PhantomEncoder, landmarks_from_vector, load_phantom_encoder
from ccfexp.pretrain.encoders import EncoderRecipe
from ccfexp.pretrain.population import Population, PopulationSpec, render_population

HELD_OUT: Final = PopulationSpec(first_identity=900_000, identities=60, sessions=2, movements=7, palsied=0.6)


def held_out_figures(recipe: EncoderRecipe, encoder: PhantomEncoder, head: nn.Module) -> dict[str, float]:
    """Figures of one encoder on 60 people never trained on."""
    people = render_population(replace(HELD_OUT, size=recipe.encoder.image_size), workers=1)
    encoder.eval()
    head.eval()
    with torch.no_grad():
        index = torch.arange(people.image_N3HW.shape[0])
        vector_ND = torch.cat([encoder(people.batch(part)).vector_BD for part in index.split(256)])
        if recipe.task == "identity":
            return {"verification_auc": verification_auc(vector_ND, people.person_N)}
        if recipe.task == "landmark":
            return landmark_figures(vector_ND, people)
        if recipe.task == "deviation":
            identity = load_phantom_encoder("phantom-identity")
            vector_ND = vector_ND - torch.cat([identity(people.batch(part)).vector_BD for part in index.split(256)])
            return expression_figures(head, vector_ND, people)
        expression, landmark = head["expression"], head["landmark"]  # type: ignore[index]
        return expression_figures(expression, vector_ND, people) | landmark_figures(landmark(vector_ND), people)


def verification_auc(vector_ND: Tensor, person_N: Tensor) -> float:
    """Area under the ROC curve of cosine similarity between same-person and different-person pairs."""
    unit = functional.normalize(vector_ND)
    cosine = unit @ unit.T
    upper = torch.triu(torch.ones_like(cosine, dtype=torch.bool), 1)
    same = (person_N[:, None] == person_N[None]) & upper
    positive, negative = cosine[same].numpy(), np.sort(cosine[upper & ~same].numpy())
    return float(np.searchsorted(negative, positive).mean() / len(negative))


def landmark_figures(vector_N136: Tensor, people: Population) -> dict[str, float]:
    """Mean distance in pixels of a 64-pixel image and relative to the inter-ocular distance (outer eye corners)."""
    predicted, truth = landmarks_from_vector(vector_N136), people.landmark_N682
    distance = (predicted - truth).norm(dim=-1).mean(1)
    interocular = (truth[:, 36] - truth[:, 45]).norm(dim=-1)
    return {"landmark_px64": float(64 * distance.mean()), "landmark_nme": float((distance / interocular).mean())}


def expression_figures(head: nn.Module, vector_ND: Tensor, people: Population) -> dict[str, float]:
    """Accuracy of side and movement, Spearman correlation of the mean severity."""
    side = head.side(vector_ND).argmax(1)  # type: ignore[operator]
    movement = head.movement(vector_ND).argmax(1)  # type: ignore[operator]
    severity = head.severity(vector_ND).mean(1)  # type: ignore[operator]
    palsied = people.side_N > 0
    return {
        "side_accuracy": float((side == people.side_N)[palsied].float().mean()),
        "side_accuracy_with_none": float((side == people.side_N).float().mean()),
        "movement_accuracy": float((movement == people.movement_N).float().mean()),
        "severity_spearman": float(spearmanr(severity.numpy(), people.severity_N3.mean(1).numpy()).statistic),
    }
