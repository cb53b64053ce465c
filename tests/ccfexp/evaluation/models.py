"""Models of known skill, scored on made-up cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ccfexp.evaluation.scores import CaseScores, ModelScores

SIDES = ("left", "right", "none")


def model(name: str, skill: float, seed: int = 0, subjects: int = 10, cases: int = 6) -> ModelScores:
    """A model that reads side, severity and shape rightly with probability or weight ``skill``."""
    truth, luck = np.random.default_rng(99), np.random.default_rng((seed, 1))
    made = []
    for subject in range(subjects):
        easy = truth.normal()
        for _ in range(cases):
            side, grade = SIDES[truth.integers(3)], float(truth.integers(1, 7))
            right = luck.random() < skill
            made.append(
                CaseScores(
                    subject=subject,
                    true_side=side,
                    predicted_side=side if right else SIDES[luck.integers(3)],
                    true_severity=grade,
                    predicted_severity=skill * grade + (1 - skill) * float(luck.normal(3.5, 1.5)),
                    nme=0.10 - 0.06 * skill + 0.005 * easy,
                    ssim=0.5 + 0.3 * skill + 0.02 * easy,
                    psnr=15 + 8 * skill + easy,
                    identity_similarity=0.7 + 0.2 * skill,
                    movement_correct=bool(luck.random() < skill),
                    laterality=side if right and side != "none" else SIDES[luck.integers(2)],
                    grade=int(grade),
                    stranger_similarity=0.3 - 0.2 * skill,
                )
            )
    return ModelScores(name, tuple(made))


def target() -> ModelScores:
    """The true pictures read by the same evaluators."""
    return ModelScores("true target", tuple(replace(c, ssim=1.0, psnr=float("inf")) for c in model("t", 0.95).cases))
