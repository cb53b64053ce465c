"""What is known of a photograph: read strictly, never guessed, never repeated."""

from __future__ import annotations

import contextlib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.data.rows import Movement, Role, Side
from ccfexp.errors import ConfigError
from client.prepare.entries import FACTS
from client.prepare.facts import BadFactsError, read_facts, read_number, same_subject
from client.prepare.movements import read_movement

TODAY = date(2026, 3, 1)
GOOD = {"subject": "7", "movement": "rest", "side": "left", "grade": "III", "consent_train": "true"}


def reasons(changed: dict[str, str]) -> tuple[str, ...]:
    """Read facts that must be refused."""
    with pytest.raises(BadFactsError) as caught:
        read_facts(GOOD | changed, {}, TODAY)
    return caught.value.reasons


def test_all_facts_are_read() -> None:
    """Each in its own form."""
    facts = read_facts(
        {
            "subject": " S 01 ",
            "session": "Visit 2",
            "movement": "Big_Smile",
            "side": "R",
            "grade": "HB IV",
            "role": "Both",
            "consent_train": "Yes",
            "consent_generate": "1",
            "consent_expires": "2030-01-31",
            "mm_per_pixel": "0.25",
        },
        {},
        TODAY,
    )

    assert (facts.subject, facts.session) == ("s 01", "visit 2")
    assert (facts.movement, facts.side, facts.grade, facts.role) == (Movement.SMILE_TEETH, Side.RIGHT, 4, Role.BOTH)
    assert (facts.consent_train, facts.consent_generate) == (True, True)
    assert (facts.consent_expires, facts.mm_per_pixel) == (date(2030, 1, 31), 0.25)


def test_the_text_form_holds_no_identifier() -> None:
    """Facts may end in a log; the patient may not."""
    facts = read_facts(
        GOOD | {"subject": "SMITH^JOHN", "session": "1961-04-01", "consent_expires": "2031-07-09"}, {}, TODAY
    )

    assert "smith" not in repr(facts).casefold()
    assert "1961" not in repr(facts)
    assert "2031" not in repr(facts)


def test_all_problems_are_told_at_once() -> None:
    """A hospital corrects a row once."""
    told = reasons(
        {
            "subject": " ",
            "movement": "",
            "side": "",
            "grade": "7",
            "role": "x",
            "consent_train": "maybe",
            "consent_generate": "x",
            "consent_expires": "31.01.2030",
            "mm_per_pixel": "0,25",
        }
    )

    assert [reason.split()[0] for reason in told] == [
        "movement", "subject", "side", "grade", "role", "consent_train", "consent_generate", "consent_expires",
        "mm_per_pixel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("", None),
        ("I", 1),
        ("vi", 6),
        ("3", 3),
        ("3.0", 3),
        ("HB 3", 3),
        ("HB III", 3),
        ("hb-v", 5),
        ("Grade IV", 4),
        ("House-Brackmann grade II", 2),
        ("House Brackmann: 2", 2),
        ("III/VI", 3),
        ("2 / 6", 2),
        ("Ⅳ", 4),
    ],
)
def test_grades(text: str, grade: int | None) -> None:
    """As clinics write them; empty is not graded."""
    assert read_facts(GOOD | {"grade": text}, {}, TODAY).grade == grade


@pytest.mark.parametrize(
    "text", ["0", "7", "-3", "II-III", "3-4", "III/V", "2.5", "IIII", "?", "n/a", "mild", "HB", "iiv"]
)
def test_what_is_no_grade(text: str) -> None:
    """A range, an unknown or another scale is no House-Brackmann grade."""
    assert "grade is not a House-Brackmann grade" in reasons({"grade": text})[0]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("left", Side.LEFT),
        ("L", Side.LEFT),
        ("Right side", Side.RIGHT),
        ("r", Side.RIGHT),
        ("BOTH", Side.BILATERAL),
        ("B", Side.BILATERAL),
        ("none", Side.NONE),
        ("healthy", Side.NONE),
        ("Normal", Side.NONE),
    ],
)
def test_sides(text: str, side: Side) -> None:
    """The patient's own."""
    assert read_facts(GOOD | {"side": text, "grade": ""}, {}, TODAY).side is side


def test_a_side_is_never_inferred() -> None:
    """Not even where grade I says that nothing is paralysed."""
    (reason,) = reasons({"side": "", "grade": "I"})

    assert "none where nothing is paralysed" in reason
    assert "never read from the picture" in reason


def test_none_and_a_paresis_contradict_each_other() -> None:
    """Grade I is no paresis; the others are."""
    assert reasons({"side": "none", "grade": "II"}) == (
        "side=none and a grade above I contradict each other; correct one of them",
    )
    assert read_facts(GOOD | {"side": "none", "grade": "I"}, {}, TODAY).grade == 1


@pytest.mark.parametrize("text", ["", "false", "no", "0", "FALSE"])
def test_without_consent_to_training_nothing_is_taken(text: str) -> None:
    """Absent is as good as refused."""
    assert reasons({"consent_train": text}) == (
        "no consent to training; leave the photograph out or ask for consent (consent_train=true)",
    )


@pytest.mark.parametrize("text", ["x", "y", "t", "ja", "2", "truee", "1.5", "on", "✓"])
def test_consent_is_never_guessed(text: str) -> None:
    """Another word than the six is neither yes nor no, and says so once."""
    (reason,) = reasons({"consent_train": text})
    assert reason.startswith("consent_train is none of true, false, yes, no, 1, 0")
    (reason,) = reasons({"consent_generate": text})
    assert reason.startswith("consent_generate is none of")


def test_consent_to_drawing_is_its_own() -> None:
    """It does not follow from the other."""
    assert read_facts(GOOD, {}, TODAY).consent_generate is False


@pytest.mark.parametrize(("day", "holds"), [("2026-03-01", True), ("2026-02-28", False), ("", True)])
def test_consent_holds_through_its_last_day(day: str, *, holds: bool) -> None:
    """And not one day longer."""
    facts = GOOD | {"consent_expires": day}
    if holds:
        read_facts(facts, {}, TODAY)
    else:
        assert "consent_expires is past" in reasons(facts)[0]


@pytest.mark.parametrize(
    "text", ["20300131", "2030-1-31", "2030-02-30", "31.01.2030", "2030-01-31T10:00", "2030-W01-1", "٢٠٣٠-٠١-٣١"]
)
def test_what_is_no_date(text: str) -> None:
    """One form only: 03/04 is two days."""
    assert reasons({"consent_expires": text}) == (
        "consent_expires is not a date; write year, month and day as 2030-01-31",
    )


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "1,5", "0.1 mm", "1_0", "٣"])
def test_what_is_no_length(text: str) -> None:
    """Positive and finite."""
    assert reasons({"mm_per_pixel": text})[0].startswith("mm_per_pixel is ")


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("12", 12.0), ("2.5", 2.5), ("1e-3", 1e-3)])
def test_numbers(text: str, value: float) -> None:
    """Digits and a decimal point."""
    assert read_number(text) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "7.0"),
        (" 7 ", "7"),
        ("SMITH", "smith"),
        ("Straße", "STRASSE"),
        ("A  B\tC", "a b c"),
        ("Ａ１", "a1"),
        ("Mu\u0308ller", "Müller"),
        ("7.00", "7"),
    ],
)
def test_two_spellings_of_one_patient(one: str, other: str) -> None:
    """Must meet, or a patient is trained on and held out at once."""
    assert same_subject(one) == same_subject(other)


@pytest.mark.parametrize(("one", "other"), [("7", "07"), ("7.5", "7"), ("7.0.0", "7"), ("a b", "ab"), ("p-1", "p1")])
def test_two_patients_stay_two(one: str, other: str) -> None:
    """What a hospital writes on purpose counts."""
    assert same_subject(one) != same_subject(other)


@given(st.text())
def test_the_compared_form_is_its_own(text: str) -> None:
    """Whoever compares twice gets the same."""
    assert same_subject(same_subject(text)) == same_subject(text)


@pytest.mark.parametrize("text", ["", "  ", "\u200b", "\u00ad\t"])
def test_a_patient_without_a_number_is_refused(text: str) -> None:
    """Signs that nobody sees are no number: all such patients would be one."""
    assert reasons({"subject": text})[0].startswith("subject is empty")


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    """A folder's name can be any bytes; a pseudonym is made of text."""
    assert reasons({"subject": "Ren\udce9"}) == ("subject is not text in UTF-8; rename the folder or file",)


_ANY = st.text(st.characters(exclude_categories=())) | st.text(max_size=8) | st.text(min_size=150, max_size=400)


@given(st.dictionaries(st.sampled_from(FACTS), _ANY))
def test_any_text_is_read_or_refused(facts: dict[str, str]) -> None:
    """Whatever stands in a table."""
    with contextlib.suppress(BadFactsError):
        read_facts(facts, {}, TODAY)


@given(st.sampled_from([name for name in FACTS if name not in ("subject", "session")]), st.text(max_size=30))
def test_no_reason_repeats_a_text(name: str, text: str) -> None:
    """In a table shifted by one column the text could be a patient's name."""
    planted = f"{text}SMITH^JOHN{text}"
    told = " ".join(reasons({name: planted}))

    assert "smith" not in told.casefold()


# --- names of movements -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("movement", list(Movement))
def test_our_own_names(movement: Movement) -> None:
    """However they are written."""
    for text in (movement, movement.upper(), movement.replace("_", " "), movement.replace("_", "-"), f" {movement} "):
        assert read_movement(text, {}) is movement


@pytest.mark.parametrize(
    ("text", "movement"),
    [
        ("Resting", Movement.REST),
        ("Big_Smile", Movement.SMILE_TEETH),
        ("Brow_Raise", Movement.BROW_RAISE),
        ("Gentle_Eye_Closure", Movement.GENTLE_EYE_CLOSURE),
        ("Tight_Eye_Closure", Movement.TIGHT_EYE_CLOSURE),
        ("ooooo", Movement.LIP_PUCKER),
        ("eeeek", Movement.LOWER_TEETH),
        ("NeutralFace", Movement.REST),
        ("SpontaneousEyeBlink", Movement.BLINK),
        ("VoluntaryEyeBlink", Movement.BLINK),
        ("CloseEyeSoftly", Movement.GENTLE_EYE_CLOSURE),
        ("CloseEyeHardly", Movement.TIGHT_EYE_CLOSURE),
        ("RaiseEyebrow", Movement.BROW_RAISE),
        ("ShrugNose", Movement.SNARL),
        ("ShowTeeth", Movement.SMILE_TEETH),
        ("BlowCheek", Movement.CHEEK_PUFF),
        ("LipPucker", Movement.LIP_PUCKER),
        ("nose wrinkle", Movement.SNARL),
        ("whistle", Movement.LIP_PUCKER),
        ("pout", Movement.LIP_PUCKER),
        ("Smile (closed)", Movement.SMILE_CLOSED),
        ("grin", Movement.SMILE_TEETH),
    ],
)
def test_names_of_the_field(text: str, movement: Movement) -> None:
    """Of Emotrics-Plus, of a clinic's protocol, of the scales."""
    assert read_movement(text, {}) is movement


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [("Smile", "smile_closed", "smile_teeth"), ("eyes closed", "gentle_eye_closure", "tight_eye_closure")],
)
def test_what_means_two_movements_is_asked_back(text: str, first: str, second: str) -> None:
    """With both; the hospital says which."""
    with pytest.raises(ValueError, match=f"can mean {first} or {second}"):
        read_movement(text, {})
    assert read_movement(text, {text.upper(): first}) == first


@pytest.mark.parametrize("text", ["left smile", "RightSnarl", "wink"])
def test_movements_of_one_side_are_none(text: str) -> None:
    """They were asked for on one side alone."""
    with pytest.raises(ValueError, match="one side alone"):
        read_movement(text, {})


def test_a_mistyped_name_is_answered_with_ours() -> None:
    """And with ours alone."""
    with pytest.raises(
        ValueError, match=r"^is not a known movement. Did you mean 'cheek_puff'\? Known: rest"
    ) as caught:
        read_movement("Cheek-Pufff", {})
    assert "pufff" not in str(caught.value)


def test_the_hospitals_names_come_first() -> None:
    """In any language, and over ours."""
    words = {"Stirn runzeln": "brow_raise", "Pout": "frown"}

    assert read_movement("STIRN_RUNZELN", words) is Movement.BROW_RAISE
    assert read_movement("pout", words) is Movement.FROWN


def test_two_own_names_that_fold_to_one_must_agree() -> None:
    """Which of the two is meant cannot be told."""
    with pytest.raises(ConfigError, match="differ in capitals"):
        read_movement("rest", {"Ruhe": "rest", "ruhe ": "blink"})
    assert read_movement("ruhe", {"Ruhe": "rest", "ruhe ": "rest"}) is Movement.REST
