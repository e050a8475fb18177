"""WhatsApp exports, in the forms that phones of different countries write; our own sentences."""

from collections import Counter
from pathlib import Path

import pytest
from source_helpers import formats, read, write

from chatbot.data import DataError
from chatbot.data.sources import find_sources, read_source

# Each writes the same moment, 21:05 on the last day of 2023, before " - " or in brackets.
MOMENTS = [
    "31/12/2023, 21:05 - ",
    "31/12/23, 9:05 pm - ",
    "12/31/23, 9:05 PM - ",
    "12/31/23, 9:05\u202fPM - ",
    "31.12.23, 21:05 - ",
    "31.12.2023 21.05 - ",
    "31.12.23 um 21:05 - ",
    "31/12/2023 às 21:05 - ",
    "31/12/23 9:05 p. m. - ",
    "31/12/23, 9:05\u00a0p.\u00a0m. - ",
    "2023-12-31, 9:05 p.m. - ",
    "2023/12/31 21:05 - ",
    "2023/12/31 下午9:05 - ",
    "2023/12/31 晚上9:05 - ",
    "2023. 12. 31. 오후 9:05 - ",
    "[31/12/2023, 21:05:09] ",
    "[12/31/23, 9:05:09\u202fPM] ",
    "\u200e[31.12.23, 21:05:09] ",
    "[2023/12/31 21:05:09] ",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_form_of_date_and_hour(tmp_path: Path, moment: str) -> None:
    later = moment.replace("05", "55", 1)
    dawn = moment.replace("31", "30", 1)  # another day, whichever way it is written
    text = f"{moment}Ann: hi: there\n{later}Ben B.: hello\n{dawn}Ben B.: morning\n{dawn}Ann: yes"
    path = write(tmp_path / "WhatsApp Chat with Ben.txt", f"\ufeff{text}\n")
    assert formats(path) == ["whatsapp"]
    assert read(path) == ["u: hi: there | b: hello", "b: morning | u: yes"]


ANDROID = """31/12/2023, 09:00 - Messages and calls are end-to-end encrypted. Tap to learn more.
31/12/2023, 09:00 - Ann created group "Us: two"
31/12/2023, 21:15 - Ann: Have you eaten?
31/12/2023, 21:15 - Ann: I made soup:
- lentils

- bread 😋
31/12/2023, 21:16 - Ben: <Media omitted>
31/12/2023, 21:17 - Ben: IMG-20231231-WA0001.jpg (file attached)
my plate
31/12/2023, 21:17 - Ben: Enough for me <This message was edited>
31/12/2023, 21:18 - Ann: This message was deleted
31/12/2023, 21:19 - Ann: null
31/12/2023, 23:58 - Ann: Happy new year!
01/01/2024, 00:02 - Ben: To you too <3
01/01/2024, 06:03 - Cleo: Awake?
"""
IPHONE = """[12/31/23, 9:15:03 PM] Us: \u200eMessages and calls are end-to-end encrypted.
[12/31/23, 9:15:04 PM] ~\u202fAnn: Look \u200e<attached: 00000001-PHOTO-2023-12-31.jpg>
\u200e[12/31/23, 9:15:05 PM] Ben: \u200eimage omitted
[12/31/23, 9:15:06 PM] Ben: Nice
"""


def test_android(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    path = write(tmp_path / "chat.txt", ANDROID.replace("\n", "\r\n"))
    assert read(path, skipped=skipped) == [
        "u: Have you eaten? | u: I made soup:\n- lentils\n\n- bread 😋 | b: my plate | "
        "b: Enough for me | u: Happy new year! | b: To you too <3",
        "u: Awake?",
    ]
    assert skipped == {"notice": 3, "media": 2}
    assert [line for line, _ in read_source(*find_sources([path]))] == [3, 16]


@pytest.mark.parametrize(
    ("deleted", "edited", "media"),
    [
        ("You deleted this message", "<This message was edited>", "<Media omitted>"),
        (
            "Diese Nachricht wurde gelöscht.",
            "<Diese Nachricht wurde bearbeitet.>",
            "<Medien ausgeschlossen>",
        ),
        ("Se eliminó este mensaje.", "<Se editó este mensaje.>", "<Multimedia omitido>"),
        ("Ce message a été supprimé", "<Ce message a été modifié>", "<Médias omis>"),
        ("Hai eliminato questo messaggio", "<Il messaggio è modificato>", "<Media omessi>"),
    ],
)
def test_what_phones_add_in_other_languages(
    tmp_path: Path, deleted: str, edited: str, media: str
) -> None:
    texts = [("Ann", "So?"), ("Ben", deleted), ("Ben", media), ("Ben", f"I <3 you {edited}")]
    lines = [f"1/2/24, 10:0{n} - {name}: {text}" for n, (name, text) in enumerate(texts)]
    skipped: Counter[str] = Counter()
    path = write(tmp_path / "chat.txt", "\n".join(lines))
    assert read(path, skipped=skipped) == ["u: So? | b: I <3 you"]
    assert skipped == {"notice": 1, "media": 1}


def test_what_people_put_between_signs_stays(tmp_path: Path) -> None:
    said = ["<3 to you <3 and you>", "a <b c>", "x < Y and Y > z", "I mean <B>"]
    lines = [f"1/2/24, 10:0{n} - {'Ann' if n % 2 else 'Ben'}: {t}" for n, t in enumerate(said)]
    path = write(tmp_path / "chat.txt", "\n".join(lines))
    assert [text[3:] for text in read(path)[0].split(" | ")] == said


def test_midnight_is_twelve_am(tmp_path: Path) -> None:
    late = "12/31/23, 11:58 PM - Ann: hi\n1/1/24, 12:02 AM - Ben: ho\n"
    noon = "1/1/24, 12:01 PM - Ann: up?\n1/1/24, 1:00 PM - Ben: yes\n"
    path = write(tmp_path / "chat.txt", late + noon)
    assert read(path) == ["u: hi | b: ho", "u: up? | b: yes"]


def test_iphone(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    path = write(tmp_path / "_chat.txt.gz", IPHONE)
    assert read(path, skipped=skipped) == ["u: Look | b: Nice"]
    assert skipped == {"notice": 2}


@pytest.mark.parametrize(
    ("bot", "roles"), [(None, "ubu"), ("Ann", "buu"), ("ben", "ubu"), ("Cleo", "uub")]
)
def test_in_a_group_all_but_the_bot_are_the_user(
    tmp_path: Path, bot: str | None, roles: str
) -> None:
    names = ("Ann", "Ben", "Cleo")
    lines = [f"1/2/24, 10:0{n} - {name}: I am {name}" for n, name in enumerate(names)]
    path = write(tmp_path / "chat.txt", "\n".join(lines))
    expected = [f"{role}: I am {name}" for role, name in zip(roles, names, strict=True)]
    assert read(path, bot=bot) == [" | ".join(expected)]


def test_a_bot_who_never_speaks_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "chat.txt", ANDROID)
    with pytest.raises(DataError, match=r"'Bea' \(bot\); allowed: Ann, Ben, Cleo"):
        read(path, bot="Bea")


def test_another_text_is_no_export(tmp_path: Path) -> None:
    path = write(tmp_path / "chat.txt", "\nhi\nhello\n")
    with pytest.raises(DataError, match=r"chat.txt:2: not a message of WhatsApp; allowed: a line"):
        read(path, format="whatsapp")
