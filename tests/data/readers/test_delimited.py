"""Delimited files as people have them: read as they are with a finding that says how, or refused
with the option that would make them understood."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.checks import READ_AS
from flaxbert.data.table import Table
from flaxbert.errors import DataError

ROWS = [
    {"label": "ham", "text": "plain words"},
    {"label": "spam", "text": 'he said ""good"" twice, "really"'},
    {"label": "ham", "text": "two\nlines; and more"},
    {"label": "ham", "text": "a tab\there"},
]


def read(path: Path, content: str | bytes, **options: object) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return readers.read(str(path), DataConfig(**options), split="train")


def values(table: Table) -> list[dict]:
    return [row.values for row in table.rows]


def remarks(table: Table) -> list[str]:
    return [str(finding) for finding in table.issues if finding.kind == READ_AS]


def written(rows: Sequence[Sequence[object]], separator: str, quoting: int, end: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end).writerows(rows)
    return text.getvalue()


TABLE = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]


# --- quotes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tabs_and_quotes_of_a_csv_writer_are_read_as_written(
    quoting: int, end: str, tmp_path: Path
) -> None:
    table = read(tmp_path / "a.tsv", written(TABLE, "\t", quoting, end))
    assert values(table) == ROWS
    (remark,) = remarks(table)
    assert remark.startswith(f"{tmp_path}/a.tsv:1: double quotes enclose cells")
    assert "--config.data.quoting=no" in remark


def test_tabs_with_quotes_around_all_but_numbers_are_read_as_written(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", '"text"\t"label"\n"one"\t1\n"two ""2"""\t0\n')
    assert values(table) == [{"text": "one", "label": "1"}, {"text": 'two "2"', "label": "0"}]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (  # Excel's tab-delimited text: quotes around a cell with a comma too
            'text\tlabel\n"Hello, world"\tpos\nplain\tneg\n"he said ""good"" twice"\tpos\n',
            ["Hello, world", "plain", 'he said "good" twice'],
        ),
        ('text\tlabel\n"Hello, world"\tpos\n"a\ttab"\tneg\n', ["Hello, world", "a\ttab"]),
        ('"text"\t"label"\n"one"\t1\n"two"\t""\n', ["one", "two"]),  # pandas, NaN
        ('text\tlabel\n"one"\t"pos"\n"two"\t"neg"\n', ["one", "two"]),
        (  # R's write.table
            '"text"\t"label"\n"1"\t"he said \\"good\\""\t"pos"\n"2"\t"fine"\t"neg"\n',
            ['he said "good"', "fine"],
        ),
        ('text\tlabel\n"he said \\"good\\""\tpos\nfine\tneg\n', ['he said "good"', "fine"]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tabs_and_quotes_around_some_cells_are_read_as_written(
    content: str, texts: list[str], end: str, tmp_path: Path
) -> None:
    table = read(tmp_path / "a.tsv", content.replace("\n", end))
    assert [row["text"] for row in values(table)] == texts
    assert any("--config.data.quoting=no" in remark for remark in remarks(table))


def test_cells_in_quotes_that_need_none_are_counted(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", 'text\tlabel\nplain\tx\n"both"\tx\n"a" or "b"\tx\n')
    assert [row["text"] for row in values(table)] == ["plain", '"both"', '"a" or "b"']
    assert remarks(table) == [
        f"{tmp_path}/a.tsv:3: 2 cells begin and end with a double quote, which is text here; if "
        "quotes enclose cells, set --config.data.quoting=yes"
    ]


def test_a_quote_that_happens_to_close_another_lines_is_text(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", 'label\ttext\n1\t"open\n0\tclosed"\n1\tfine\n')
    assert [row["text"] for row in values(table)] == ['"open', 'closed"', "fine"]


@pytest.mark.parametrize("quoting", ["yes", "no"])
def test_quotes_that_cannot_be_read_name_all_ways(quoting: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="escaped"):
        read(tmp_path / "a.tsv", 'text\tlabel\n"a \\"b\\" \tc"\tx\n', quoting=quoting)


@pytest.mark.parametrize(
    "cells",
    [
        ['"both"', "none", "none"],
        ['"an open quote', "none", "none"],
        ['he said ""twice""', '"all of it"', "none"],
        ['"a" and "b"', "none", "none"],
        ['""', "none", "none"],
        ["none", "none", '6" disk'],
    ],
)
def test_quotes_that_no_csv_writer_leaves_are_text(cells: list[str], tmp_path: Path) -> None:
    lines = ["text\tlabel", *(f"{cell}\t{n}" for n, cell in enumerate(cells))]
    table = read(tmp_path / "a.tsv", "\n".join(lines) + "\n")
    assert [row["text"] for row in values(table)] == cells
    assert not any("double quotes enclose cells" in remark for remark in remarks(table))


def test_two_quotes_in_two_cells_enclose_no_tab(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", 'text\tlabel\n"\t"\n')
    assert values(table) == [{"text": '"', "label": '"'}]


def test_how_cells_are_quoted_may_be_told(tmp_path: Path) -> None:
    content = 'text\tlabel\n"both"\tgood\nnone\tbad\n'
    assert values(read(tmp_path / "a.tsv", content, quoting="yes"))[0]["text"] == "both"
    assert values(read(tmp_path / "a.tsv", content, quoting="no"))[0]["text"] == '"both"'
    content = 'text,label\n"open,good\n'
    assert values(read(tmp_path / "a.csv", content, quoting="no"))[0]["text"] == '"open'
    with pytest.raises(DataError, match=r"a\.csv:2: .*--config\.data\.quoting=no"):
        read(tmp_path / "a.csv", content)


def test_a_broken_line_of_a_raw_table_names_the_option_for_quotes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tsv:2: 1 columns.* --config\.data\.quoting=yes"):
        read(tmp_path / "a.tsv", 'text\tlabel\n"two\nlines"\tgood\n6" disk\tbad\n')


def test_quotes_escaped_by_backslashes_are_read(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", 'text,label\n"he said \\"hi, you\\"",good\nfine,bad\n')
    assert values(table)[0] == {"text": 'he said "hi, you"', "label": "good"}
    assert "the backslashes are removed" in remarks(table)[0]
    # Backslashes of a file that is well formed without this are text.
    table = read(tmp_path / "a.csv", 'text,label\n"C:\\",good\nfine,bad\n')
    assert values(table)[0] == {"text": "C:\\", "label": "good"}


# --- separators --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a"])
@pytest.mark.parametrize("separator", [";", "|", "\t", ","])
def test_separators_are_detected(separator: str, name: str, tmp_path: Path) -> None:
    content = f"label{separator}text\nham{separator}fine. Good\nspam{separator}buy\n"
    table = read(tmp_path / name, content)
    assert [(row["label"], row["text"]) for row in values(table)] == [
        ("ham", "fine. Good"),
        ("spam", "buy"),
    ]
    usual = {"a.csv": ",", "a.tsv": "\t", "a": ""}[name]
    assert bool(remarks(table)) == (separator != usual)


def test_a_text_may_hold_what_separates_columns_elsewhere(tmp_path: Path) -> None:
    content = "label;text\nham;fine, good, old\nspam;buy, or not\n"
    assert [row["text"] for row in values(read(tmp_path / "a.csv", content))] == [
        "fine, good, old",
        "buy, or not",
    ]
    content = "text\nfine; good\nold | new\nbuy; or; not\n"
    assert len(values(read(tmp_path / "a.csv", content))) == 3


@pytest.mark.parametrize(
    ("content", "columns", "row"),
    [
        (
            "id;text (raw, unclean);label\n1;fine;ham\n2;a, b, c;spam\n",
            (),
            {"id": "1", "text (raw, unclean)": "fine", "label": "ham"},
        ),
        ('"text, raw";label\nfine;ham\nold;spam\n', (), {"text, raw": "fine", "label": "ham"}),
        ("hi, there;pos\nfine;neg\n", ("text", "label"), {"text": "hi, there", "label": "pos"}),
        ("hi;1,5\nfine;2\n", ("text", "label"), {"text": "hi", "label": "1,5"}),
        ("hi, there\tpos\nfine\tneg\n", ("text", "label"), {"text": "hi, there", "label": "pos"}),
    ],
)
def test_the_separator_is_the_one_that_gives_all_rows_as_many_columns(
    content: str, columns: tuple[str, ...], row: dict, tmp_path: Path
) -> None:
    table = read(tmp_path / "a.csv", content, columns=columns)
    assert values(table)[0] == row
    assert "If that is wrong, set --config.data.separator=comma" in remarks(table)[0]


def test_a_separator_within_quotes_separates_no_columns(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", '"a;b",x\n"c;d",y\n', columns=("text", "label"))
    assert values(table)[0] == {"text": "a;b", "label": "x"}


def test_separators_that_fit_alike_are_refused_with_the_option(tmp_path: Path) -> None:
    content, columns = "hi, there;pos\nso, then;neg\n", ("text", "label")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.csv", content, columns=columns)
    for part in ("a.csv: commas or semicolons may", "--config.data.separator=comma or =semicolon"):
        assert part in str(caught.value)
    table = read(tmp_path / "a.csv", content, columns=columns, separator="semicolon")
    assert values(table)[1] == {"text": "so, then", "label": "neg"}
    # A tab in every row is no part of the texts.
    table = read(tmp_path / "a.tsv", content.replace(";", "\t"), columns=columns)
    assert values(table)[1] == {"text": "so, then", "label": "neg"}
    stray = 'he, "\tpos\n"so, then\tneg\n'
    table = read(tmp_path / "a.tsv", stray, columns=columns)
    assert values(table)[1] == {"text": '"so, then', "label": "neg"}


def test_a_malformed_row_does_not_change_the_separator(tmp_path: Path) -> None:
    content = "label;text\n" + "ham;fine, good\n" * 9 + "ham;one;more\n"
    with pytest.raises(DataError, match=r"a\.csv:11: 3 columns.* semicolons must be"):
        read(tmp_path / "a.csv", content)


def test_quotes_between_pipes_may_be_text(tmp_path: Path) -> None:
    content = '1|"open, he said|ham\n2|he, "said"|spam\n3|fine|ham\n'
    table = read(tmp_path / "a.csv", content, columns=("id", "text", "label"))
    assert [row["text"] for row in values(table)] == ['"open, he said', 'he, "said"', "fine"]
    assert any("double quotes are text" in remark for remark in remarks(table))


def test_excels_line_about_the_separator_is_read(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", "sep=;\nlabel;text\nham;fine\n")
    assert values(table) == [{"label": "ham", "text": "fine"}]
    assert table.rows[0].origin == f"{tmp_path}/a.csv:3"


def test_a_space_behind_each_comma_is_no_text(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", 'label, text\nham, "fine, good"\nspam, buy\n')
    assert values(table) == [
        {"label": "ham", "text": "fine, good"},
        {"label": "spam", "text": "buy"},
    ]
    assert "a space follows each comma" in remarks(table)[0]


# --- headers -----------------------------------------------------------------------------------


def test_columns_without_a_name_are_left_out_and_counted(tmp_path: Path) -> None:
    content = "v1,v2,,,\nham,Go,,,\nspam,Free,now,,\nham,Ok,,,\nham,Ok\n"
    table = read(tmp_path / "spam.csv", content)
    assert values(table)[:2] == [{"v1": "ham", "v2": "Go"}, {"v1": "spam", "v2": "Free"}]
    assert len(table.rows) == 4
    (remark,) = remarks(table)
    assert "3 columns without a name left out; rows with something there: 1, " in remark
    assert "spam.csv:3" in remark


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_an_index_of_pandas_is_left_out(name: str, tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", f"{name},text\n0,fine\n1,good\n2,old\n")
    assert values(table) == [{"text": t} for t in ("fine", "good", "old")]
    assert remarks(table) == [f"{tmp_path}/a.csv:1: 1 column without a name left out"]


def test_row_names_of_r_are_left_out(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", '"text","label"\n"1","fine","good"\n"2","old","bad"\n')
    assert values(table) == [{"text": "fine", "label": "good"}, {"text": "old", "label": "bad"}]
    assert "rows begin with a number" in remarks(table)[0]


def test_a_separator_behind_every_row_is_no_column(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", "text,label\nfine,good,\nold,bad,\n")
    assert values(table) == [{"text": "fine", "label": "good"}, {"text": "old", "label": "bad"}]


def test_a_row_that_is_longer_than_the_others_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:3: 3 columns.* commas must be in double"):
        read(tmp_path / "a.csv", "label,text\nham,fine\nham,fine, good\n")


def test_comments_before_the_header_are_left_out(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", "# by hand\n\n# v2\ntext\tlabel\nfine\tgood\n#1\tbad\n")
    assert [row["text"] for row in values(table)] == ["fine", "#1"]
    assert table.rows[0].origin == f"{tmp_path}/a.tsv:5"
    assert "comments" in remarks(table)[0]


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:1: columns named twice: \['text'\]\. Rename"):
        read(tmp_path / "a.csv", "text,label,text\na,b,c\n")


# --- files without a header --------------------------------------------------------------------

NEEDED = {"text": "options.text", "label": "options.label"}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("ham\tGo until the river\nspam\tFree entry\nham\tOk then\n", "label,text"),
        ("Go until\t0\nFree entry\t1\nOk then\t0\n", "text,label"),
        ("7\tGo on\tx\tham\n8\tFree\ty\tspam\n9\tOk so\tz\tham\n", "column1,text,column3,label"),
        ("id1\ta text\tham\nid2\tanother text\tspam\nid3\ta third\tham\n", "column1,text,label"),
    ],
)
def test_names_for_a_file_without_a_header_are_offered(
    content: str, names: str, tmp_path: Path
) -> None:
    table = read(tmp_path / "a.tsv", content)
    with pytest.raises(DataError) as caught:
        table.require(NEEDED)
    assert "The first line seems to hold data" in str(caught.value)
    assert str(caught.value).endswith(f"--config.data.columns={names}.")
    named = read(tmp_path / "a.tsv", content, columns=tuple(names.split(",")))
    named.require(NEEDED)
    assert len(named.rows) == len(table.rows) + 1
    assert {row.values["label"] for row in named.rows} in ({"ham", "spam"}, {"0", "1"})


def test_a_header_that_is_none_of_ours_is_not_taken_for_data(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", "Text,Category\nfine,good\nold,bad\n")
    with pytest.raises(DataError) as caught:
        table.require(NEEDED)
    assert str(caught.value).endswith("Did you mean 'Text'? --config.options.text=Text")
    with pytest.raises(DataError, match=r"no column 'label'.*--config\.options\.label=COLUMN"):
        table.require({"label": "options.label"})


def test_the_names_that_are_told_may_stand_in_the_file_too(tmp_path: Path) -> None:
    table = read(tmp_path / "a.csv", "label,text\nham,fine\n", columns=("label", "text"))
    assert values(table) == [{"label": "ham", "text": "fine"}]
    assert "it is not a row" in remarks(table)[0]


def test_a_row_of_another_width_than_the_names_told_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tsv:2: 3 columns, but data\.columns names 2"):
        read(tmp_path / "a.tsv", "ham\tfine\nham\tfine\told\n", columns=("label", "text"))


def test_a_header_of_other_names_than_those_told_is_reported(tmp_path: Path) -> None:
    content = "class\tbody\n" + "ham\tfine\nspam\tbuy\n" * 4
    table = read(tmp_path / "a.tsv", content, columns=("label", "text"))
    assert len(table.rows) == 9
    (remark,) = remarks(table)
    assert remark.startswith(f"{tmp_path}/a.tsv:1: label is 'class' in this row alone: if it names")


@pytest.mark.parametrize(
    "content",
    [
        "ham\tone\n" + "ham\tfine\nspam\tbuy\n" * 4,
        "rare\tone\n" + "ham\tfine\nspam\tbuy\n" * 400 + "rare\ttwo\n",
        "2\tone\n" + "0\ttwo\n1\ttwo\n" * 4,
        "ham\tone\nspam\ttwo\nham\tthree\n",
    ],
)
def test_a_first_row_like_the_others_is_no_header(content: str, tmp_path: Path) -> None:
    content = "".join(f"{line}{n}\n" for n, line in enumerate(content.splitlines()))
    assert not remarks(read(tmp_path / "a.tsv", content, columns=("label", "text")))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("| text | label |\n|------|:-----:|\n| fine | ham |\n| old | spam |\n", 2),
        ("+------+-------+\n| text | label |\n+------+-------+\n| fine | ham |\n", 1),
        (" text | label \n------+-------\n fine | ham\n old | spam\n", 2),
    ],
)
def test_a_table_drawn_with_dashes_is_refused(
    content: str, line: int, name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, content)
    expected = f"{name}:{line}: a line of dashes, as below the header of a Markdown table. Remove"
    assert expected in str(caught.value)


def test_a_markdown_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.md:2: a line of dashes"):
        read(tmp_path / "a.md", "| text | label |\n|------|-------|\n| fine | ham |\n")


# --- forms by content --------------------------------------------------------------------------

WORDS = "Anna\tB-PER\nsaw\tO\n\nParis\tB-LOC\n"


CONLLU = """# sent_id = 1
1\tAnna\tAnna\tPROPN\t_\t_\t2\tnsubj\t_\t_
2\tsaw\tsee\tVERB\t_\t_\t0\troot\t_\t_

1\tParis\tParis\tPROPN\t_\t_\t0\troot\t_\t_
"""


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.annotated", "a"])
@pytest.mark.parametrize(
    "content",
    [
        WORDS,
        WORDS.replace("\t", " "),
        "Anna\tb-per\nsaw\to\n\nParis\tb-loc\n",
        "Anna\tPER-B\nsaw\t0\n\nParis\tLOC-B\n",
        CONLLU,
    ],
)
def test_words_and_tags_are_read_whatever_the_name(name: str, content: str, tmp_path: Path) -> None:
    table = read(tmp_path / name, content)
    assert [row["tokens"] for row in values(table)] == [["Anna", "saw"], ["Paris"]]
    what = "read as conll by its content; set --config.data.format if it is not"
    assert f"{tmp_path}/{name}: {what}" in remarks(table)
    assert len(remarks(table)) == 1 + (content == CONLLU)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ('{"text": "fine"}\n{"text": "old"}\n', "jsonl"),
        ('[\n{"text": "fine"},\n{"text": "old"}]\n', "json"),
        ('{"data": [\n{"text": "fine"}, {"text": "old"}]}', "json"),
        ("text\tlabel\nfine\tx\nold\ty\n", "tsv"),
    ],
)
def test_a_name_without_an_ending_is_no_hindrance(content: str, form: str, tmp_path: Path) -> None:
    table = read(tmp_path / "data", content)
    assert [row["text"] for row in values(table)] == ["fine", "old"]
    assert f"read as {form} by its content" in remarks(table)[0]


def test_a_table_whose_labels_look_like_tags_is_a_table(tmp_path: Path) -> None:
    content = "text\tlabel\nfine\tB-1\nold\tO\n"
    assert len(values(read(tmp_path / "a.tsv", content))) == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.xlsx", {}),
        ("a.zip", {}),
        ("a.csv", {"encoding": "latin1"}),
        ("b.dat", {"format": "tsv"}),
    ],
)
def test_an_archive_is_named_whatever_its_ending(name: str, options: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name}: not text but a ZIP .* save the sheet as CSV"):
        read(tmp_path / name, b"PK\x03\x04\x14\x00\x06\x00", **options)
    with pytest.raises(DataError, match=rf"{name}\.gz: not text but compressed by gzip; unpack"):
        read(tmp_path / f"{name}.gz", b"\x1f\x8b\x08\x00\x00", **options)


@pytest.mark.parametrize("content", ["some prose\nof two lines\n", "", "\0\1\2"])
def test_a_form_that_is_not_certain_is_asked_for(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.dat", content)
    for part in ("a.dat: the ending '.dat' is none of", "--config.data.format"):
        assert part in str(caught.value)


def test_a_directory_is_refused_with_a_pattern(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a file; for a directory's files: .*/\*\.tsv"):
        readers.read(str(tmp_path), DataConfig(), split="train")


def test_prose_as_a_table_is_told_the_form(tmp_path: Path) -> None:
    table = read(tmp_path / "a.txt", "fine\tgood\n")
    with pytest.raises(DataError, match=r"\.txt file is read as prose.*--config\.data\.format=tsv"):
        table.require(NEEDED)
    assert len(read(tmp_path / "a.txt", "text\tlabel\nfine\tgood\n", format="tsv").rows) == 1
