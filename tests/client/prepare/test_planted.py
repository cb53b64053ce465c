"""Names planted in file names, folders, EXIF, DICOM attributes and tables are found in nothing that is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.client.prepare.clinic import Clinic, Shot, shots, write_csv, write_table
from tests.client.prepare.dicoms import write_dicom

PLANTED = ("smith", "1961-04-03", "MRN0815", "Musterfrau", "Elm Street", "555-0199", "geheim")


def said(clinic: Clinic, *arguments: str) -> str:
    """All that the command writes to the terminal, as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "client.prepare", "--site-file", str(clinic.site.path), *arguments],
        capture_output=True,
        timeout=240,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "default", "PYTHONDEVMODE": "1"},
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def found_in(text: str | bytes) -> list[str]:
    """Which planted words stand in a text, in any case."""
    data = text.encode() if isinstance(text, str) else text
    return [word for word in PLANTED if re.search(re.escape(word.encode()), data, re.IGNORECASE)]


def plant_photograph(path: Path, shot: Shot) -> None:
    """A JPEG whose every kind of metadata names the patient."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = "smith john 1961-04-03", "Dr. Musterfrau", "MRN0815 geheim"
    exif.get_ifd(0x8825)[1] = "Elm Street 5"
    path.parent.mkdir(parents=True, exist_ok=True)
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>smith 555-0199</x:xmpmeta>"
    Image.fromarray(shot.image_HW3).save(path, "JPEG", quality=95, exif=exif, comment=b"smith geheim", xmp=xmp)
    np.save(path.with_suffix(".npy"), shot.landmark_682)


def fill(clinic: Clinic) -> None:
    """Good and bad photographs of a folder of patients with names."""
    inbox, taken = clinic.inbox / "Musterfrau geheim", shots(2)
    for shot in taken:
        plant_photograph(inbox / f"smith_{shot.subject}_MRN0815" / "1961-04-03" / f"{shot.movement}_1.jpg", shot)
    folder = inbox / "smith_jane_MRN0815"
    folder.mkdir(parents=True)
    (folder / "geheim smile_1.jpg").write_bytes(b"not a photograph of smith")
    (folder / "rest_1961-04-03.png").write_bytes(taken[0].encoded()[:500])
    text = PngInfo()
    text.add_text("Patient", "smith Elm Street 555-0199", zip=True)
    Image.fromarray(taken[0].image_HW3).save(folder / "rest_2.png", pnginfo=text)
    (folder / "rest_3.tif").write_bytes(b"II*\x00" + b"smith geheim" * 40)
    (folder / "snarl.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42 smith geheim" * 20)
    (folder / "blink_smith.jpg").symlink_to("/etc/hostname")
    labels = [
        {"subject": name.name, "side": "left", "grade": "II", "consent_train": "true"} for name in inbox.iterdir()
    ]
    write_csv(clinic.inbox / "labels smith.csv", labels)
    clinic.settings(source=str(inbox), labels={"file": str(clinic.inbox / "labels smith.csv")}, holdout=0.0)


@pytest.mark.slow
def test_nothing_that_is_written_names_a_patient(tmp_path: Path) -> None:
    """Folder, DICOM, broken table; prepare, check, forget; output, errors and every file outside of the inbox."""
    clinic = Clinic.at(tmp_path)
    fill(clinic)
    outputs = [said(clinic)]
    assert "4 prepared now" in outputs[0]
    outputs.append(said(clinic, "--check"))
    assert "the manifest is whole" in outputs[-1]

    dicom = clinic.inbox / "smith dicom"
    for number, shot in enumerate(shots(1, first=700)):
        planted = {"PatientName": "smith^Musterfrau", "PatientAddress": "Elm Street", "PatientBirthDate": "19610403"}
        write_dicom(
            dicom / f"geheim{number}.dcm", shot.image_HW3, subject="MRN0815", movement=shot.movement, planted=planted,
            consent=[("YES", "NAMED_PROTOCOL")], side="left",
        )  # fmt: skip
    (dicom / "smith broken.dcm").write_bytes((dicom / "geheim0.dcm").read_bytes()[:900])
    outputs.append(said(clinic, "--source", str(dicom)))
    assert "entry 1" in outputs[-1]

    table = write_table(
        clinic.inbox / "smith table.csv", shots(1, first=800), side="smith", subject="Musterfrau geheim"
    )
    outputs.append(said(clinic, "--source", str(table)))
    assert "side" in outputs[-1]
    table.write_bytes(b"smith;geheim\n\xff\xfe\x00 Musterfrau")
    outputs.append(said(clinic, "--source", str(table)))
    outputs.append(said(clinic, "--source", str(tmp_path / "smith nowhere")))
    (clinic.site.root / "prepare.yaml").unlink()
    subject = next(path.name for path in (clinic.inbox / "Musterfrau geheim").iterdir() if "MRN-500" in path.name)
    outputs.append(said(clinic, "--forget", subject, "--yes"))
    assert "2 photographs deleted" in outputs[-1]

    for output in outputs:
        assert found_in(output) == [], output
        assert "Traceback" not in output
    written = clinic.written()
    assert len(written) > 6
    for path in written:
        assert found_in(str(path.relative_to(tmp_path))) == []
        assert found_in(path.read_bytes()) == [], path.name
