"""A folder of DICOM files becomes entries; what must not be learned from, or cannot be read, has a reason."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from ccfexp.errors import ConfigError
from client.prepare.entries import Entry, Refusal
from client.prepare.settings import Dicom
from client.prepare.sources.dicom import DicomSource
from tests.client.prepare.dicoms import SECRETS, write_dicom, write_dicom_video

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def entries(root: Path, settings: Dicom | None = None) -> list[Entry | Refusal]:
    return list(DicomSource(root, settings or Dicom()).entries())


def one(root: Path, settings: Dicom | None = None) -> Entry:
    (entry,) = entries(root, settings)
    assert isinstance(entry, Entry), entry
    return entry


def reason(root: Path, settings: Dicom | None = None) -> str:
    (refusal,) = entries(root, settings)
    assert isinstance(refusal, Refusal), refusal
    assert not any(secret in refusal.reason for secret in SECRETS), refusal.reason
    return refusal.reason


def _code(value: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = value, "DCM"
    return code


def test_a_number_that_cannot_be_spelled_is_refused(tmp_path: Path) -> None:
    """Two patients whose signs are replaced could become one."""
    file = write_dicom(tmp_path / "a", IMAGE, subject="SMITH-77")
    file.write_bytes(file.read_bytes().replace(b"SMITH-77", b"\xff\xfeITH-77"))

    assert "SpecificCharacterSet" in reason(tmp_path)


def test_a_photograph_says_who_when_what_and_which_side(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "smith_john.dcm", IMAGE, movement="Big smile", side="left")

    entry = one(tmp_path)

    assert entry.facts == {
        "subject": "MRN-SECRET-77", "session": "20240115", "movement": "Big smile", "side": "left",
    }  # fmt: skip
    assert (entry.number, entry.material.kind, entry.material.frame) == (1, "dicom", 0)
    assert entry.material.file == file
    assert not any(secret in repr(entry) for secret in SECRETS)


@pytest.mark.parametrize(
    ("side", "fact"), [("right", "right"), ("bilateral", "bilateral"), ("none", None), (None, None)]
)
def test_laterality_is_the_patients(tmp_path: Path, side: str | None, fact: str | None) -> None:
    write_dicom(tmp_path / "a", IMAGE, side=side)

    assert one(tmp_path).facts.get("side") == fact


def test_laterality_can_mean_something_else(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", IMAGE, side="left")

    assert "side" not in one(tmp_path, Dicom(laterality="ignore")).facts


def test_an_unknown_laterality_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", IMAGE, more={"ImageLaterality": "SMITH"})

    assert "ImageLaterality" in reason(tmp_path)


def test_attributes_are_named_by_keyword_or_tag(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a", IMAGE, more={"AccessionNumber": "S-9", "AcquisitionDateTime": "20240203101112"})
    dataset = pydicom.dcmread(file)
    dataset.private_block(0x0019, "ELSEWHERE", create=True).add_new(0x01, "LO", "IV")
    dataset.save_as(file)

    facts = one(
        tmp_path, Dicom(movement="(0008,103E)", subject="AccessionNumber", session="(0008,002a)", grade="(0019,1001)")
    ).facts

    assert facts == {"movement": "rest", "subject": "S-9", "session": "20240203101112", "grade": "IV"}


def test_a_private_tag_of_implicit_vr_is_text_too(tmp_path: Path) -> None:
    """Without a VR in the file pydicom knows only bytes."""
    file = write_dicom(tmp_path / "a", IMAGE, coding="implicit")
    dataset = pydicom.dcmread(file)
    dataset.add_new(0x00190010, "LO", "ELSEWHERE")
    dataset.add_new(0x00191001, "LO", "III")
    dataset.save_as(file)

    assert one(tmp_path, Dicom(grade="(0019,1001)")).facts["grade"] == "III"


def test_an_unknown_keyword_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'PatientID'"):
        entries(tmp_path, Dicom(subject="PatientIDs"))


def test_a_folder_that_is_not_there_is_told_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        entries(tmp_path / "smith_john")
    assert "smith" not in str(caught.value)


TRUE, FALSE = "true", "false"


@pytest.mark.parametrize(
    ("consent", "train", "generate"),
    [
        (None, None, None),
        ([("YES", "PUBLIC_RELEASE")], TRUE, None),
        ([("YES", "RESTRICTED_REUSE")], None, None),
        ([("YES", "NAMED_PROTOCOL")], None, None),
        ([("YES", "NAMED_PROTOCOL"), ("YES", "PUBLIC_RELEASE")], TRUE, None),
        ([("NO", "PUBLIC_RELEASE")], FALSE, FALSE),
        ([("WITHDRAWN", "NAMED_PROTOCOL")], FALSE, FALSE),
        ([("YES", "PUBLIC_RELEASE"), ("WITHDRAWN", "NAMED_PROTOCOL")], FALSE, FALSE),
        ([("YES", "PUBLIC_RELEASE"), ("NO", "")], FALSE, FALSE),
        ([("MAYBE", "PUBLIC_RELEASE"), ("NO", "")], FALSE, FALSE),
    ],
)
def test_consent_is_read_conservatively(
    tmp_path: Path, consent: list[tuple[str, str]] | None, train: str | None, generate: str | None
) -> None:
    write_dicom(tmp_path / "a", IMAGE, consent=consent)

    facts = one(tmp_path).facts

    assert (facts.get("consent_train"), facts.get("consent_generate")) == (train, generate)


@pytest.mark.parametrize(
    "consent", [[], [("", "PUBLIC_RELEASE")], [("yes", "PUBLIC_RELEASE")], [("YES", "")], [("YES", "SMITH")]]
)
def test_a_consent_that_cannot_be_understood_is_refused(tmp_path: Path, consent: list[tuple[str, str]]) -> None:
    write_dicom(tmp_path / "a", IMAGE, consent=consent)

    assert "ConsentForClinicalTrialUseSequence" in reason(tmp_path)


@pytest.mark.parametrize(
    ("attributes", "subject"),
    [
        ({"PatientID": "", "PatientIdentityRemoved": "YES", "ClinicalTrialSubjectID": "T-5"}, "T-5"),
        ({"PatientID": "", "PatientIdentityRemoved": "NO", "ClinicalTrialSubjectID": "T-5"}, None),
        ({"PatientID": "P-1", "PatientIdentityRemoved": "YES", "ClinicalTrialSubjectID": "T-5"}, "P-1"),
        ({"PatientID": ""}, None),
    ],
)
def test_a_trials_number_stands_for_one_that_was_removed(
    tmp_path: Path, attributes: dict[str, str], subject: str | None
) -> None:
    write_dicom(tmp_path / "a", IMAGE, more=attributes)

    assert one(tmp_path).facts.get("subject") == subject


def test_a_trials_number_stands_for_no_other_attribute(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", IMAGE, more={"PatientIdentityRemoved": "YES", "ClinicalTrialSubjectID": "T-5"})

    assert "subject" not in one(tmp_path, Dicom(subject="AccessionNumber")).facts


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"RecognizableVisualFeatures": "NO"}, "RecognizableVisualFeatures"),
        ({"DeidentificationMethodCodeSequence": [_code("113100"), _code("113102")]}, "unrecognisable"),
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "VL Photographic Image Storage"),
        ({"SOPClassUID": None}, "VL Photographic Image Storage"),
        ({"PixelData": None}, "no Pixel Data"),
        ({"NumberOfFrames": 1001}, "NumberOfFrames"),
        ({"NumberOfFrames": -1}, "NumberOfFrames"),
        ({"PatientID": ["SMITH", "JOHN"]}, r"\(0010,0020\) holds several values"),
    ],
)
def test_what_is_not_to_be_learned_from_is_refused(tmp_path: Path, attributes: dict[str, Any], words: str) -> None:
    write_dicom(tmp_path / "a", IMAGE, more=attributes)

    assert re.search(words, reason(tmp_path))


@pytest.mark.parametrize(
    "value",
    [
        {"RecognizableVisualFeatures": "YES"},
        {"BurnedInAnnotation": "NO"},
        {"DeidentificationMethodCodeSequence": [_code("113100")]},
    ],
)
def test_the_harmless_answers_are_taken(tmp_path: Path, value: dict[str, Any]) -> None:
    write_dicom(tmp_path / "a", IMAGE, more=value)

    assert one(tmp_path).number == 1


def test_each_frame_is_an_entry_and_numbers_go_on(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", [IMAGE, IMAGE, IMAGE])
    (tmp_path / "b").write_text("SMITH^JOHN")
    write_dicom(tmp_path / "c", IMAGE)

    found = entries(tmp_path)

    assert [entry.number for entry in found] == [1, 2, 3, 4, 5]
    assert isinstance(found[3], Refusal)
    assert [entry.material.frame for entry in found if isinstance(entry, Entry)] == [0, 1, 2, 0]


def test_a_video_is_one_entry(tmp_path: Path) -> None:
    write_dicom_video(tmp_path / "a", b"not read here", side="right")

    entry = one(tmp_path)

    assert (entry.material.kind, entry.facts["side"]) == ("dicom_video", "right")


def test_the_order_is_that_of_the_names_bytes_and_nothing_outside_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("b/2", "a/9", "B/1", "ä"):
        write_dicom(root / name, IMAGE, movement=name)
    write_dicom(tmp_path / "outside", IMAGE, movement="outside")
    (root / "c").symlink_to(tmp_path / "outside")
    (root / "d").symlink_to(root / "d")
    (root / "e").symlink_to(tmp_path)
    (root / ".hidden").write_text("SMITH^JOHN")

    found = entries(root)

    assert [entry.facts["movement"] for entry in found if isinstance(entry, Entry)] == ["B/1", "a/9", "b/2", "ä"]
    assert [entry.number for entry in found if isinstance(entry, Refusal)] == [4, 5]
    assert entries(root) == found


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.100"])
def test_an_unread_transfer_syntax_is_named(tmp_path: Path, syntax: str) -> None:
    file = write_dicom(tmp_path / "a", IMAGE, coding="jpeg")
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(file)

    assert UID(syntax).name in reason(tmp_path)


def test_an_unknown_transfer_syntax_is_not_repeated(tmp_path: Path) -> None:
    """A private number may be made of a patient's."""
    file = write_dicom(tmp_path / "a", IMAGE)
    file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.19610214.47111\0\0"))

    assert "19610214" not in reason(tmp_path)
    assert "private" in reason(tmp_path)


def test_a_video_that_is_no_mpeg_is_refused(tmp_path: Path) -> None:
    write_dicom_video(tmp_path / "a", b"x" * 100, syntax="1.2.840.10008.1.2.4.50")

    assert "JPEG Baseline" in reason(tmp_path)


def test_a_dicomdir_is_told_as_what_it_is(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.FileSetID, dataset.DirectoryRecordSequence = "SMITH", []
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)

    assert "DICOMDIR" in reason(tmp_path)


def test_a_deflated_file_is_not_unfolded(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a", IMAGE)
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    dataset.save_as(file)

    assert "Deflated" in reason(tmp_path)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a", IMAGE)
    item = Dataset()
    item.PatientComments = "smith_john_1961"
    dataset = pydicom.dcmread(file)
    pixels = file.read_bytes().index(b"\xe0\x7f\x10\x00")
    # A sequence of undefined length in an item of undefined length, over and over.
    deep = (b"\x40\x00\x60\xa1SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 20_000
    whole = file.read_bytes()
    file.write_bytes(whole[:pixels] + deep + whole[pixels:])
    assert isinstance(dataset.get("PatientName"), object)

    assert "damaged" in reason(tmp_path)


def test_values_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a", IMAGE, more={"NumberOfFrames": 1})
    file.write_bytes(file.read_bytes().replace(b"(\x00\x08\x00IS\x02\x001 ", b"(\x00\x08\x00IS\x02\x00^X"))

    assert "NumberOfFrames" in reason(tmp_path)


def test_a_sequence_that_is_none_is_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", IMAGE))
    dataset.add_new(0x00120083, "LO", "SMITH^JOHN")
    dataset.save_as(tmp_path / "a")

    assert "(0012,0083) is not the sequence" in reason(tmp_path)


def test_neither_warnings_nor_log_lines_come_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Values that pydicom warns of, with everything switched on that could show them."""
    write_dicom(
        tmp_path / "smith_john.dcm",
        IMAGE,
        session="SMITH-IS-NO-DATE",
        more={"PatientBirthDate": "SMITH^JOHN", "SpecificCharacterSet": "SMITH", "ImageLaterality": "L"},
    )
    logger = logging.getLogger("pydicom")
    level = logger.level
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = entries(tmp_path)

    assert len(found) == 1
    assert not caught
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert logger.level == level


def _check_all_is_told(root: Path) -> None:
    for entry in entries(root):
        assert isinstance(entry, Entry | Refusal)
        if isinstance(entry, Refusal):
            assert not any(secret in entry.reason for secret in SECRETS), entry.reason


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    consent = [("YES", "PUBLIC_RELEASE"), ("YES", "NAMED_PROTOCOL")]
    more = {"NumberOfFrames": 1, "PersonIdentificationCodeSequence": Sequence([Dataset()])}
    return write_dicom(folder / "a", IMAGE, side="left", consent=consent, more=more).read_bytes()


def test_cut_off_anywhere_it_is_refused(tmp_path: Path, whole: bytes) -> None:
    header = whole.index(b"\xe0\x7f\x10\x00")
    for length in range(1, header + 12, 3):
        (tmp_path / "smith_john").write_bytes(whole[:length])
        assert reason(tmp_path)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_are_survived(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    places = data.draw(st.lists(st.integers(128, len(whole) - 1), min_size=1, max_size=8))
    for place in places:
        damaged[place] = data.draw(st.integers(0, 255))
    (tmp_path / "smith_john").write_bytes(bytes(damaged))

    _check_all_is_told(tmp_path)
