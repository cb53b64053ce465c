"""What a hospital knows of its patients, added to photographs that do not say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.errors import ConfigError
from client.prepare.settings import Columns, Table
from client.prepare.sources.labels import LabelBook, read_labels
from tests.client.prepare.sources.tables import csv_text, write_workbook

HEADER = ("subject", "session", "movement", "side", "grade", "consent_train")
WORDS = {"Ruhe": "rest"}


def book(folder: Path, *rows: tuple[str, ...], table: Table | None = None) -> LabelBook:
    """Write a table of labels and read it."""
    file = folder / "labels.csv"
    file.write_text(csv_text([HEADER, *rows]))
    return read_labels(file, table or Table(), WORDS)


def test_a_row_holds_for_all_photographs_of_its_subject(tmp_path: Path) -> None:
    """However the number is written."""
    labels = book(tmp_path, ("S 01", "", "", "left", "III", "true"), ("7", "", "", "right", "", "false"))

    assert labels.complete({"subject": " s  01", "movement": "rest"}) == {
        "subject": " s  01", "movement": "rest", "side": "left", "grade": "III", "consent_train": "true",
    }  # fmt: skip
    assert labels.complete({"subject": "7.0"}) == {"subject": "7.0", "side": "right", "consent_train": "false"}
    assert labels.complete({"subject": "8"}) == {"subject": "8"}
    assert labels.complete({"subject": ""}) == {"subject": ""}


def test_what_the_source_says_stays(tmp_path: Path) -> None:
    """An empty text says nothing."""
    labels = book(tmp_path, ("7", "", "", "left", "III", "true"))

    completed = labels.complete({"subject": "7", "side": "right", "grade": " "})

    assert (completed["side"], completed["grade"]) == ("right", "III")


def test_the_row_that_names_most_wins(tmp_path: Path) -> None:
    """Fact by fact: what it leaves empty comes from the next."""
    labels = book(
        tmp_path,
        ("7", "", "", "left", "VI", "true"),
        ("7", "2", "", "", "IV", ""),
        ("7", "2", "Ruhe", "", "II", "false"),
        ("7", "3", "", "right", "", ""),
    )

    def of(session: str, movement: str) -> tuple[str, str, str]:
        facts = labels.complete({"subject": "7", "session": session, "movement": movement})
        return facts["side"], facts["grade"], facts["consent_train"]

    assert of("1", "rest") == ("left", "VI", "true")
    assert of("2", "blink") == ("left", "IV", "true")
    assert of("2.0", "Neutral face") == ("left", "II", "false")
    assert of("3", "") == ("right", "VI", "true")


def test_a_row_of_a_session_says_nothing_of_a_photograph_without_one(tmp_path: Path) -> None:
    """Its grade may be another session's."""
    labels = book(tmp_path, ("7", "2", "", "left", "IV", "true"), ("7", "", "frown", "left", "IV", "true"))

    assert labels.complete({"subject": "7"}) == {"subject": "7"}


@pytest.mark.parametrize(
    ("first", "second", "fact"),
    [
        (("7", "", "", "left", "", ""), ("7.0", "", "", "right", "", ""), "side"),
        (("7", "2", "", "", "III", ""), ("7", "2", "", "", "4", ""), "grade"),
        (("7", "2", "", "", "", "true"), ("7", "", "rest", "", "", "false"), "consent_train"),
        (("7", "", "Ruhe", "left", "", ""), ("7", "", "resting", "both", "", ""), "side"),
    ],
)
def test_rows_that_contradict_each_other(
    tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...], fact: str
) -> None:
    """Are both named, and nothing is chosen."""
    between = ("8", "", "", "left", "I", "true")
    with pytest.raises(ConfigError, match=f"rows 2 and 4 of the table of labels name equally much .* in {fact};"):
        book(tmp_path, first, between, second)


def test_rows_that_say_the_same_do_not_contradict_each_other(tmp_path: Path) -> None:
    """In other words."""
    labels = book(
        tmp_path, ("7", "", "", "L", "III", "yes"), ("7", "", "", "left", "HB 3", "1"), ("7", "1", "", "right", "", "")
    )

    assert labels.complete({"subject": "7"})["side"] == "L"


def test_a_contradiction_needs_a_photograph_for_which_both_rows_hold(tmp_path: Path) -> None:
    """Two sessions are two grades."""
    labels = book(
        tmp_path, ("7", "1", "", "left", "VI", ""), ("7", "2", "", "left", "II", ""), ("7", "", "rest", "left", "", "")
    )

    assert labels.complete({"subject": "7", "session": "2", "movement": "rest"})["grade"] == "II"


def test_three_sessions_and_a_movement(tmp_path: Path) -> None:
    """The contradiction is found whichever session it is with."""
    rows = [("7", str(session), "", "left", grade, "") for session, grade in enumerate(("III", "III", "IV"))]
    for grade in ("III", "IV", "V"):
        with pytest.raises(ConfigError, match="contradict each other in grade"):
            book(tmp_path, *rows, ("7", "", "rest", "left", grade, ""))


def test_a_row_that_cannot_be_read_stops_all(tmp_path: Path) -> None:
    """It could be any patient's."""
    with pytest.raises(ConfigError, match="row 3 of the table of labels names no subject"):
        book(tmp_path, ("7", "", "", "left", "", ""), ("", "", "", "right", "", ""))
    with pytest.raises(ConfigError, match="row 2 of the table of labels has 5 cells"):
        book(tmp_path, ("7", "", "", "left", ""))
    file = write_workbook(tmp_path / "labels.xlsx", [("subject", "side"), (7, "left"), (8, "=A1")])
    with pytest.raises(ConfigError, match="row 3 of the table of labels side is a formula without a stored result"):
        read_labels(file, Table(), {})


def test_labels_in_a_workbook_with_own_names(tmp_path: Path) -> None:
    """As any table."""
    file = write_workbook(tmp_path / "labels.xlsx", [("Fallnummer", "Seite"), (7, "left")])

    labels = read_labels(file, Table(columns=Columns(subject="Fallnummer", side="Seite")), {})

    assert labels.complete({"subject": "7"})["side"] == "left"
    with pytest.raises(ConfigError, match=r"table\.columns\.subject: the table has no column"):
        read_labels(file, Table(), {})


def test_the_text_form_names_no_patient(tmp_path: Path) -> None:
    """Nor does an error."""
    labels = book(tmp_path, ("SMITH^JOHN", "", "", "left", "", ""))

    assert repr(labels) == "LabelBook(rows=1)"
    with pytest.raises(ConfigError) as caught:
        book(tmp_path, ("SMITH^JOHN", "", "", "SMITH", "", ""), ("SMITH^JOHN", "", "", "JOHN", "", ""))
    assert "SMITH" not in str(caught.value)
    assert "JOHN" not in str(caught.value)


@given(st.dictionaries(st.sampled_from(("subject", "session", "movement", "side")), st.text(max_size=20)))
def test_any_facts_are_completed(facts: dict[str, str]) -> None:
    """What is said stays, and nothing else than facts is added."""
    completed = LabelBook({}, {}).complete(facts)

    assert completed == facts
