"""Public data sets, in the layouts in which public programs read them."""

from __future__ import annotations

from datetime import date
from pathlib import Path, PurePosixPath

import pytest

from ccfexp.data.files import BadFileError
from ccfexp.data.rows import Movement
from client.prepare.entries import Entry
from client.prepare.facts import BadFactsError, read_facts
from client.prepare.sources.layouts import aflfp, aflfp_source, meei, meei_source, yfp, yfp_source
from tests.client.prepare.sources.tables import facts_of, refusals_of, write_photographs

AFLFP_CLASSES = {
    "brow raise": Movement.BROW_RAISE,
    "close smile": Movement.SMILE_CLOSED,
    "open smile": Movement.SMILE_TEETH,
    "frown": Movement.FROWN,
    "snarl": Movement.SNARL,
    "gentle eyes closure": Movement.GENTLE_EYE_CLOSURE,
    "tight eyes closure": Movement.TIGHT_EYE_CLOSURE,
    **dict.fromkeys(f"{side} {part}" for side in ("left", "right") for part in ("smile", "snarl", "wink", "eyebrow")),
    "funny": None,
}


def test_aflfp_has_sixteen_classes() -> None:
    """Seven are movements of ours; the others are refused with the reason."""
    assert len(AFLFP_CLASSES) == 16
    for name, movement in AFLFP_CLASSES.items():
        path = PurePosixPath(f"12/12-{name}_3.jpg")
        if movement is not None:
            assert aflfp(path) == {"subject": "12", "movement": movement}
        else:
            with pytest.raises(BadFileError, match="none of the movements: one side alone, or funny"):
                aflfp(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("12-frown_3.jpg", "no numbered folder"),
        ("AFLFP/12/12-frown_3.jpg", "no numbered folder"),
        ("12/12-frown.jpg", "no name of AFLFP; expected number-class_frame"),
        ("12/12-yawn_3.jpg", "none of AFLFP's 16 classes"),
    ],
)
def test_what_is_not_aflfp(path: str, reason: str) -> None:
    """Is told what was expected."""
    with pytest.raises(BadFileError, match=reason):
        aflfp(PurePosixPath(path))


def test_aflfp_with_its_landmarks(tmp_path: Path) -> None:
    """The ones that were set by hand, not the detector's; what a Mac leaves behind is passed over."""
    write_photographs(
        tmp_path, "12/12-frowm_3.jpg", "12/12-frowm_3.pts", "12/12-frowm_3_detect.pts", "12/._12-frowm_3.jpg"
    )

    (entry,) = aflfp_source(tmp_path).entries()

    assert isinstance(entry, Entry)
    assert entry.facts == {"subject": "12", "movement": "frown"}
    assert entry.material.landmarks == tmp_path / "12" / "12-frowm_3.pts"


@pytest.mark.parametrize(
    "folder",
    [
        "Normals/Normal8",
        "Normal/Normal8",
        "Flaccid/CompleteFlaccid/CompleteFlaccid1",
        "Flaccid/NearNormalFlaccid/NearNormalFlaccid1",
        "Synkinetic/Complete Synkinetic/Synkinetic_Complete1",
    ],
)
def test_meei(tmp_path: Path, folder: str) -> None:
    """Eight photographs in the order of the protocol, and a video that needs a table."""
    person = PurePosixPath(folder).name
    write_photographs(
        tmp_path, f"{folder}/{person}.mp4", *(f"{folder}/{person}_{number}.JPG" for number in range(1, 10))
    )

    video, *photographs, ninth = meei_source(tmp_path).entries()

    assert facts_of(photographs) == [
        {"subject": person, "movement": movement}
        for movement in (
            "rest", "brow_raise", "gentle_eye_closure", "tight_eye_closure", "smile_closed", "smile_teeth",
            "lip_pucker", "lower_teeth",
        )
    ]  # fmt: skip
    assert "write into a table where each begins and ends" in refusals_of([video])[1]
    assert "expected the folder's name, an underscore and 1 to 8" in refusals_of([ninth])[10]


@pytest.mark.parametrize("path", ["Normal8_1.jpg", "Normal8/Normal8_1.jpg", "Other/Normal8/Normal8_1.jpg"])
def test_what_is_not_meei(path: str) -> None:
    """Is told where to point."""
    with pytest.raises(BadFileError, match="name the folder that holds these"):
        meei(PurePosixPath(path))


def test_a_photograph_in_another_persons_folder() -> None:
    """Is refused: one of the two names is wrong."""
    with pytest.raises(BadFileError, match="expected the folder's name"):
        meei(PurePosixPath("Normals/Normal7/Normal8_1.jpg"))


def test_yfp_shows_speech(tmp_path: Path) -> None:
    """Which is no movement until the hospital says what it counts as."""
    write_photographs(tmp_path, "Image/3/17.bmp", "Image2/Image2/4/1.bmp", "Image_large_XML/3/17.xml")

    first, second = facts_of(list(yfp_source(tmp_path).entries()))

    assert (first, second) == ({"subject": "3", "movement": "speaking"}, {"subject": "4", "movement": "speaking"})
    facts = first | {"side": "left", "consent_train": "true"}
    with pytest.raises(BadFactsError, match="movement shows speech, no movement that was asked for"):
        read_facts(facts, {}, date(2026, 3, 1))
    assert read_facts(facts, {"speaking": "rest"}, date(2026, 3, 1)).movement is Movement.REST


@pytest.mark.parametrize(
    "path", ["3/17.bmp", "Image5/3/17.bmp", "Image/17.bmp", "Image/x/17.bmp", "Image/3/a.bmp", "Image/3/17.mp4"]
)
def test_what_is_not_yfp(path: str) -> None:
    """Is told what was expected."""
    with pytest.raises(BadFileError, match=r"Image, Image2, Image3, Image4|expected number/frame\.bmp"):
        yfp(PurePosixPath(path))
