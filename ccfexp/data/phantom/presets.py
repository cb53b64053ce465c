"""Named phantom hospitals for the command line: those of the default run, with fewer patients."""

from typing import Final

from ccfexp.data.phantom.camera import SceneStyle
from ccfexp.data.phantom.identity import Prior
from ccfexp.data.phantom.sites import PhantomSite
from ccfexp.errors import ConfigError, did_you_mean

SITES: Final[dict[str, PhantomSite]] = {
    "A": PhantomSite(
        name="A", first_identity=1000, left_share=0.85, grade_weights=(0.1, 0.2, 0.3, 0.2, 0.2, 0.0),
        prior=Prior(skin_alpha=1.2, skin_beta=4.0, age_range=(0.4, 1.0)),
        style=SceneStyle(
            backgrounds=(0, 1), light_azimuth=(-1.2, -0.5), light_elevation=(0.1, 0.6), key_light=(0.6, 0.9),
            noise=(0.003, 0.006), blur=(0.7, 1.1),
        ),
        movements=(
            "brow_raise", "gentle_eye_closure", "tight_eye_closure", "smile_closed", "smile_teeth", "lip_pucker",
            "frown",
        ),
    ),
    "B": PhantomSite(
        name="B", first_identity=2000, left_share=0.15, grade_weights=(0.05, 0.05, 0.1, 0.2, 0.3, 0.3),
        prior=Prior(skin_alpha=3.0, skin_beta=1.5, age_range=(0.1, 0.7)),
        style=SceneStyle(
            backgrounds=(2, 4), light_azimuth=(0.2, 1.0), warmth=0.25, noise=(0.010, 0.020), blur=(0.6, 1.0),
        ),
        jpeg_quality=80,
        movements=(
            "brow_raise", "gentle_eye_closure", "smile_teeth", "snarl", "lip_pucker", "lower_teeth", "cheek_puff",
        ),
    ),
    "C": PhantomSite(
        name="C", first_identity=3000, left_share=0.5, grade_weights=(0.1, 0.1, 0.2, 0.3, 0.2, 0.1),
        prior=Prior(skin_alpha=2.0, skin_beta=2.0, age_range=(0.0, 0.6)),
        style=SceneStyle(backgrounds=(1, 3), light_elevation=(0.6, 1.0), warmth=-0.15, blur=(0.8, 1.3)),
        movements=("smile_closed", "smile_teeth", "snarl", "lip_pucker", "lower_teeth", "cheek_puff"),
    ),
}  # fmt: skip


def site_preset(name: str) -> PhantomSite:
    """A named phantom hospital.

    Raises:
        ConfigError: no such preset.
    """
    if name not in SITES:
        raise ConfigError(f"unknown phantom site={name!r}; known: {', '.join(SITES)}.{did_you_mean(name, SITES)}")
    return SITES[name]
