"""Held-out cases with a true target: what only a phantom can give.

A case asks: draw *this healthy person* making *that palsied expression*, seen in a photograph of *somebody else*. The
true target is rendered: the same person in the same light and pose with exactly that movement and palsy. People come
to the hospitals of the run in turn (their room, camera and kind of people); nobody here is a patient of any site or
in any pretraining population.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ccfexp.data.phantom.expression import HOUSE_BRACKMANN, MOVEMENTS, Palsy, Side
from ccfexp.data.phantom.sites import PhantomSite, picture_through, render_person
from ccfexp.errors import ConfigError

_STREAM = 41
FIRST_PERSON, FIRST_EXPRESSION = 800_000, 850_000
EXAMINATIONS_PER_PERSON = len(HOUSE_BRACKMANN)
MOST_MOVEMENTS = len(MOVEMENTS) - 1  # rest shows no movement


@dataclass(frozen=True)
class HeldOutCases:
    """C cases; images uint8 [C,3,H,W].

    Attributes:
        identity_C3HW: the person at rest, healthy.
        expression_C3HW: another person making the movement with the palsy.
        target_C3HW: what would be right.
        landmark_C682: exact landmarks of the target in pixels.
        subject_C: running number of the person.
        movement_C, side_C, grade_C: labels; sides are the patient's.
        severity_C: mean regional severity in [0, 1].
    """

    identity_C3HW: Tensor
    expression_C3HW: Tensor
    target_C3HW: Tensor
    landmark_C682: npt.NDArray[np.float32]
    subject_C: tuple[int, ...]
    movement_C: tuple[str, ...]
    side_C: tuple[str, ...]
    grade_C: tuple[int, ...]
    severity_C: tuple[float, ...]

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.subject_C)

    def only(self, index: Sequence[int]) -> "HeldOutCases":
        """These cases alone, in the order given."""
        chosen = list(index)

        return HeldOutCases(
            self.identity_C3HW[chosen],
            self.expression_C3HW[chosen],
            self.target_C3HW[chosen],
            self.landmark_C682[chosen],
            tuple(self.subject_C[c] for c in chosen),
            tuple(self.movement_C[c] for c in chosen),
            tuple(self.side_C[c] for c in chosen),
            tuple(self.grade_C[c] for c in chosen),
            tuple(self.severity_C[c] for c in chosen),
        )


@dataclass(frozen=True)
class _Case:
    subject: int
    movement: str
    palsy: Palsy
    identity: npt.NDArray[np.uint8]
    expression: npt.NDArray[np.uint8]
    target: npt.NDArray[np.uint8]
    landmark: npt.NDArray[np.float32]


def phantom_cases(
    people: int, image_size: int, hospitals: Sequence[PhantomSite] = (), movements: int = 1
) -> HeldOutCases:
    """Six examinations for each of ``people``: every House-Brackmann grade once (I is healthy), sides balanced.

    A grade is given to an examination of several movements, not to one picture, which may show a part of the face
    that tells little. All pictures of an examination have one palsy, shown by one other person.

    Args:
        people: number of held-out people.
        image_size: side in pixels.
        hospitals: person p is one who could come to hospital p mod H (prior of skin and age, room, camera); the
            expression photographs come from the hospitals in turn. Grades, sides and movements are those above,
            whatever a hospital sees. Empty: one plain hospital.
        movements: pictures of an examination, each of another movement.

    Raises:
        ConfigError: fewer than one person, or more movements than there are.
    """
    if people < 1:
        raise ConfigError(f"held-out people={people} must be >= 1; six examinations are drawn for each")
    if not 1 <= movements <= MOST_MOVEMENTS:
        raise ConfigError(f"movements={movements} of an examination must lie in [1, {MOST_MOVEMENTS}]")
    homes = tuple(hospitals) or (PhantomSite("plain"),)
    cases = [case for person in range(people) for case in _cases_of(homes, person, image_size, movements)]

    def stacked(images: list[npt.NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    return HeldOutCases(
        identity_C3HW=stacked([case.identity for case in cases]),
        expression_C3HW=stacked([case.expression for case in cases]),
        target_C3HW=stacked([case.target for case in cases]),
        landmark_C682=np.stack([case.landmark for case in cases]),
        subject_C=tuple(case.subject for case in cases),
        movement_C=tuple(case.movement for case in cases),
        side_C=tuple(case.palsy.side for case in cases),
        grade_C=tuple(case.palsy.grade for case in cases),
        severity_C=tuple(case.palsy.mean_severity for case in cases),
    )


def _cases_of(homes: Sequence[PhantomSite], person: int, size: int, count: int) -> list[_Case]:
    rng = np.random.default_rng([_STREAM, person])
    visit, place = divmod(person, len(homes))
    home, identity = homes[place], FIRST_PERSON + person
    rest = picture_through(home, render_person(home, identity, "rest", Palsy(), 0, size).image_HW3)
    movements = rng.permutation([name for name in MOVEMENTS if name != "rest"])
    cases = []
    for number, grade in enumerate(HOUSE_BRACKMANN):
        # Over two people of a hospital every grade has been seen on both sides.
        side: Side = "left" if (visit + place + number) % 2 else "right"
        palsy = Palsy.of_grade(grade, side, rng)
        # Whoever shows the expression comes to the hospitals in turn: at each grade and side as often to each.
        away = homes[(place + number + 1 + visit // 2) % len(homes)]
        other = FIRST_EXPRESSION + person * EXAMINATIONS_PER_PERSON + number
        for movement in (str(movements[(number + turn) % MOST_MOVEMENTS]) for turn in range(count)):
            shown = picture_through(away, render_person(away, other, movement, palsy, 1, size).image_HW3)
            target = render_person(home, identity, movement, palsy, 0, size)
            image = picture_through(home, target.image_HW3)
            cases.append(_Case(person, movement, palsy, rest, shown, image, target.landmark_682))
    return cases
