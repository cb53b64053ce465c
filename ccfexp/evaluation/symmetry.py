"""How asymmetric a face's landmarks are, to ask whether a detector has made a palsy symmetric.

Detectors are trained on healthy faces and pull a palsied one towards them (OpenFace, issue 574). Where the label says
palsied and the points are all but symmetric, somebody should look at them.

Basis of the bound: 150 phantoms, eleven movements, poses of a few degrees. Median asymmetry by grade, I to VI: .049,
.049, .053, .060, .072, .083. Pose is most of it (a turn of the head is asymmetric in a picture), so the measure cannot
tell grades apart in one photograph and is not meant to. Below .02 lie 3 % of true faces of grade III and above, 40 %
of those whose asymmetry was shrunk to a third, and all whose asymmetry was shrunk to a tenth. A detector's scatter
hides it: with 3 % of the eye distance on every point nothing lies below. So the bound finds gross symmetrising alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ccfexp.evaluation.measures import eye_distance, head_frame, mirror

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ccfexp.evaluation.measures import Array

SYMMETRISED_BELOW: Final = 0.02
"""Landmark asymmetry below which a face labelled grade III or above may have been made symmetric by its detector."""


def landmark_asymmetry(point_682: NDArray[Any]) -> Array:
    """Mean distance [...] of landmarks [..., 68, 2] from their mirror image in the head frame, in eye distances.

    0 for a face that is its own mirror image; NaN where the eyes coincide.

    Raises:
        ValueError: the shape is not [..., 68, 2].
    """
    frame = head_frame(point_682)
    distance: Array = np.linalg.norm(frame - mirror(frame), axis=-1).mean(-1) / eye_distance(point_682)
    return distance
