"""Files in many encodings: read as they were written, or with a remark that says the guess."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amount import EXAMPLES, FULL

from genrec.data.column_names import RoleNames
from genrec.data.columns import EVENT_ROLES
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, SettingsError

TITLES = {
    "English": ["Large popcorn holder £1", "£5 gift card", "Hooks 1¼ inch", "Mug ½ price", "Café £"],
    "German": ["Größe 4 grüne Kissen", "Tür-Schlüssel", "Käsebrötchen süß", "Weiße Möbel", "Preis 3 €"],
    "French": ["Théière bleue à pois", "Crème brûlée façon", "Forêt enchantée", "L’œuf à la coque"],
    "Spanish": ["Niño pequeño", "Muñeca de algodón", "Lámpara mágica", "¿Qué tal?"],
    "Italian": ["Caffè macchiato", "Libertà è virtù", "Però più bello"],
    "Portuguese": ["Pão de açúcar", "Coração grande", "Lençóis e almofadões"],
    "Swedish": ["Röd mugg på fat", "Ljusstake grön", "Små änglar"],
    "Icelandic": ["Það er góður bolli", "Þykk ábreiða", "Svört húfa með loði"],
    "Polish": ["Żółta łódź podwodna", "Książka o miłości", "Gęś w śliwkach", "Kubek z uchem"],
    "Czech": ["Červený hrnek", "Žlutý kůň", "Světlá židle", "Dětský polštář"],
    "Hungarian": ["Piros bögre fülű", "Kék tányér, nagy méretű", "Őszi levelek", "Tűzoltó autó"],
    "Turkish": ["Kırmızı fincan", "Çocuk oyuncağı", "Güneş gözlüğü", "Işıklı şapka"],
    "Russian": ["Красная кружка", "Синяя чашка с блюдцем", "Книга о любви", "Детская игрушка"],
    "Chinese": ["红色杯子", "蓝色陶瓷茶壶套装", "纯棉毛巾三件套", "儿童玩具汽车", "不锈钢保温杯 500ml"],
    "Taiwanese": ["紅色杯子", "藍色陶瓷茶壺套裝", "純棉毛巾三件組", "兒童玩具汽車", "不鏽鋼保溫杯"],
    "Japanese": ["赤いマグカップ", "陶器のティーポット", "綿のタオル 三枚組", "ｽﾃﾝﾚｽﾎﾞﾄﾙ ソ", "子供用おもちゃの車"],
    "Korean": ["빨간 머그컵", "도자기 찻주전자 세트", "면 수건 세트", "어린이 장난감 자동차"],
}  # fmt: skip
WESTERN = [
    "English",
    "German",
    "French",
    "Spanish",
    "Italian",
    "Portuguese",
    "Swedish",
    "Icelandic",
]
USED = [
    *((language, "cp1252") for language in WESTERN),
    *((language, "latin-1") for language in WESTERN),
    *((language, "cp1250") for language in ("Polish", "Czech", "Hungarian")),
    ("Turkish", "cp1254"), ("Russian", "cp1251"), ("Chinese", "gb18030"), ("Chinese", "gbk"),
    ("Taiwanese", "big5"), ("Taiwanese", "gb18030"), ("Japanese", "shift_jis"),
    ("Japanese", "cp932"), ("Korean", "euc_kr"),
]  # fmt: skip
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def in_encoding(titles: list[str], encoding: str) -> list[str]:
    """Write typographic signs that Latin-1 lacks as people do in Latin-1."""
    if encoding == "latin-1":
        titles = [t.replace("€", "EUR").replace("’", "'").replace("œ", "oe") for t in titles]
    return titles


def write(path: Path, titles: list[str], encoding: str, plain: int = 0) -> None:
    lines = ["item_id,title,price"]
    lines += [f"p{n},Plain mug {n},{n}.50" for n in range(plain)]
    lines += [f'a{n},"{title}",{n}.50' for n, title in enumerate(titles)]
    data = ("\r\n".join(lines) + "\r\n").encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("name", ["items.csv", "items.csv.gz"])
@pytest.mark.parametrize(("language", "encoding"), USED)
def test_code_pages(tmp_path: Path, language: str, encoding: str, name: str) -> None:
    titles = in_encoding(TITLES[language], encoding)
    write(tmp_path / name, titles, encoding, plain=9_000 if name == "items.csv" else 0)
    notes: list[str] = []
    table = files.read(tmp_path / name, notes=notes)
    assert table["title"].to_pylist()[-len(titles) :] == titles
    (note,) = notes
    assert note.startswith("the text is read as ")
    assert any(f"for example {title!r}" in note for title in titles)


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("language", TITLES)
def test_unicode(tmp_path: Path, language: str, encoding: str) -> None:
    write(tmp_path / "items.csv", TITLES[language], encoding, plain=3)
    notes: list[str] = []
    table = files.read(tmp_path / "items.csv", notes=notes)
    assert table["title"].to_pylist()[3:] == TITLES[language]
    assert arrow.column_names(table) == ["item_id", "title", "price"]
    assert notes == []


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "shift_jis", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("form", ["lines", "array"])
def test_json_in_other_encodings(tmp_path: Path, encoding: str, form: str) -> None:
    language = {"gb18030": "Chinese", "shift_jis": "Japanese"}.get(encoding, "French")
    rows = [f'{{"item_id": "a{n}", "title": "{t}"}}' for n, t in enumerate(TITLES[language])]
    text = "\n".join(rows) if form == "lines" else "[\n" + ",\n".join(rows) + "\n]"
    (tmp_path / "items.json").write_bytes(text.encode(encoding))
    assert files.read(tmp_path / "items.json")["title"].to_pylist() == TITLES[language]


def test_an_encoding_that_was_named_is_used(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_bytes("id,title\na,Größe\n".encode("cp850"))
    notes: list[str] = []
    table = files.read(tmp_path / "i.csv", encoding="cp850", notes=notes)
    assert table["title"].to_pylist() == ["Größe"]
    assert notes == []
    for wrong in ("cp9999", "base64", "", "utf 8 bom"):
        with pytest.raises(SettingsError, match="Expected a name such as utf-8"):
            files.read(tmp_path / "i.csv", encoding=wrong)
    rejects = Rejects("i.csv")
    files.read(tmp_path / "i.csv", encoding="utf-8", rejects=rejects)
    assert [row[1:3] for row in rejects.rows] == [(1, "not valid UTF-8")]
    with pytest.raises(DataError, match="not valid ascii"):
        files.read(tmp_path / "i.csv", encoding="ascii")


@pytest.mark.parametrize(
    ("cells", "encoding", "count"),
    [
        (["Gr\u0094\u00dfe", "Mug", "\u0084rmel"], "utf-8", 2),  # cp850 that became Latin-1
        (["CafÃ©", "LâŽ", "itâ€™s", "Ã la carte"], "utf-8", 2),  # UTF-8 that became cp1252
        (["caf\ufffd", "Mug"], "utf-8", 1),
        (["b\u0081d"], "latin-1", 1),
        (["ÃO", "CÂMARA", "Café ☕", "São"], "utf-8", 0),
    ],
)
def test_cells_that_speak_against_the_encoding_are_counted(
    tmp_path: Path, cells: list[str], encoding: str, count: int
) -> None:
    write(tmp_path / "i.csv", cells, encoding)
    notes: list[str] = []
    files.read(tmp_path / "i.csv", encoding=encoding, notes=notes)
    said = [note for note in notes if "suggest another encoding" in note]
    assert len(said) == bool(count)
    if count:
        quantity = "1 cell holds" if count == 1 else f"{count} cells hold"
        assert said[0].startswith(f"{quantity} characters that suggest")
        assert "pass --encoding NAME" in said[0]


def test_a_few_damaged_rows_do_not_change_the_encoding(tmp_path: Path) -> None:
    for language, encoding in (("Chinese", "gb18030"), ("French", "utf-8"), ("Japanese", "cp932")):
        titles = [f"{title} {n}" for n in range(40) for title in TITLES[language]]
        write(tmp_path / "i.csv", titles, encoding)
        data = (tmp_path / "i.csv").read_bytes()
        first = titles[7].encode(encoding)
        cut = data.replace(first, first[:1] + b"\xff\xff", 1)
        (tmp_path / "i.csv").write_bytes(cut)
        rejects = Rejects("i.csv")
        kept = files.read(tmp_path / "i.csv", rejects=rejects)["title"].to_pylist()
        assert kept == titles[:7] + titles[8:]
        (row,) = rejects.rows
        assert (row[1], row[2].lower()) == (8, f"not valid {encoding}")


def test_the_whole_file_decides(tmp_path: Path) -> None:
    german = [f"Tür {n}" for n in range(3000)]  # the same bytes in cp1252 and cp1250
    polish = [f"{t} {n}" for n in range(200) for t in TITLES["Polish"]]
    for titles in (german + polish, polish + german):
        write(tmp_path / "i.csv", titles, "cp1250")
        assert files.read(tmp_path / "i.csv")["title"].to_pylist() == titles


def test_long_texts_without_separators(tmp_path: Path) -> None:
    texts = [" ".join(TITLES["Chinese"] * 20) + str(n) for n in range(3)]
    write(tmp_path / "i.csv", texts, "gb18030")
    assert files.read(tmp_path / "i.csv")["title"].to_pylist() == texts


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(DataError, match="is not a text file"):
        files.read(tmp_path / "x.csv")


@given(
    used=st.sampled_from(USED + [(one, e) for one in TITLES for e in UNICODE]),
    data=st.data(),
    plain=st.sampled_from([0, 3, 300]),
)
def test_titles_are_read_back_or_the_guess_is_said(
    tmp_path_factory: pytest.TempPathFactory,
    used: tuple[str, str],
    data: st.DataObject,
    plain: int,
) -> None:
    language, encoding = used
    words = " ".join(in_encoding(TITLES[language], encoding)).split()
    titles = data.draw(
        st.lists(st.lists(st.sampled_from(words), min_size=1).map(" ".join), min_size=1)
    )
    path = tmp_path_factory.mktemp("e") / "i.csv"
    write(path, titles, encoding, plain)
    notes: list[str] = []
    found = files.read(path, notes=notes)["title"].to_pylist()[plain:]
    assert found == titles or any("is read as" in note for note in notes)
    if len({w for t in titles for w in t.split() if not w.isascii()}) > 5:
        assert found == titles


def characters(encoding: str) -> st.SearchStrategy[str]:
    """Any characters of an encoding that do not end a line or a cell, and that it can read back."""
    return st.characters(
        codec=encoding,
        exclude_characters='"\r\n\ufdd0\ufeff¢£¥¬‖−〜‾',
        exclude_categories=["Cc", "Cs"],
    )


@settings(max_examples=EXAMPLES if FULL else 12)  # each one reads a file, and guesses its encoding
@given(encoding=st.sampled_from(sorted({e for _, e in USED} | {*UNICODE})), data=st.data())
def test_any_characters_are_read_back_or_something_is_said(
    tmp_path_factory: pytest.TempPathFactory, encoding: str, data: st.DataObject
) -> None:
    titles = data.draw(st.lists(st.text(characters(encoding), max_size=12), min_size=1, max_size=9))
    path = tmp_path_factory.mktemp("e") / "i.csv"
    write(path, titles, encoding)
    notes: list[str] = []
    rejects = Rejects("i.csv")
    found = files.read(path, notes=notes, rejects=rejects)
    assert found.num_rows + len(rejects.rows) == len(titles)
    if found["title"].to_pylist() != titles and not notes and not rejects.rows:
        path.read_bytes().decode("utf-8")  # it could be either; nothing can tell


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("訂單編號,顧客,商品,數量,時間", "big5"), ("用户ID;商品ID;时间", "gb18030"),
        ("顧客番号|商品番号|購入日", "shift_jis"), ("顧客番号,商品番号,購入日", "euc_jp"),
        ("用户,item,time", "gb18030"),
    ],
)  # fmt: skip
def test_known_names_of_columns_decide_if_only_the_header_is_not_ascii(
    tmp_path: Path, header: str, encoding: str
) -> None:
    delimiter = next(c for c in ";|," if c in header)
    names = header.split(delimiter)
    rows = "".join(f"{delimiter.join(['7'] * len(names))}\n" for _ in range(30))
    (tmp_path / "e.csv").write_bytes(f"{header}\n{rows}".encode(encoding))
    known = RoleNames(EVENT_ROLES, {})
    assert arrow.column_names(files.read(tmp_path / "e.csv", known=known)) == names
