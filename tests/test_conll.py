"""Column files: what is a token, a sentence, a mistake; and the schemes of tags."""

import random
import re
from pathlib import Path

import pytest

from flaxbert.data import conll
from flaxbert.errors import DataError
from flaxbert.metrics import entities


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "data.conll"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(tmp_path: Path, content: str | bytes) -> list[dict[str, list[str]]]:
    return [sentence.values() for sentence in conll.sentences(write(tmp_path, content))[0]]


def pairs(tmp_path: Path, content: str | bytes) -> list[list[tuple[str, str]]]:
    """(token, tag) of every token of a labelled file."""
    return [list(zip(v["tokens"], v["tags"], strict=True)) for v in values(tmp_path, content)]


TWO = [[("Paris", "B-LOC"), ("sleeps", "O")], [("Good", "O")]]


@pytest.mark.parametrize(
    "content",
    [
        "Paris\tB-LOC\nsleeps\tO\n\nGood\tO\n",
        "Paris\tB-LOC\nsleeps\tO\n\nGood\tO",  # no line end at the end
        "Paris\tB-LOC\r\nsleeps\tO\r\n\r\nGood\tO\r\n",
        "Paris B-LOC\nsleeps O\n\nGood O\n",
        "Paris    B-LOC \nsleeps   O\n\nGood     O\n",  # columns in line
        "\n\nParis B-LOC\nsleeps O\n\n \n\nGood O\n\n",
        "Paris\tB-LOC\nsleeps\tO\n\t\nGood\tO\n",  # a blank line of tabs
        "Paris B-LOC\nsleeps O\n\t\nGood O\n",  # which do not make the file one of tabs
        "Paris\tB-LOC\nsleeps \t O \n\nGood\tO\n",
        "\ufeffParis\tB-LOC\nsleeps\tO\n\nGood\tO\n",
        "-DOCSTART- O\n\nParis B-LOC\nsleeps O\n\n-DOCSTART- O\n\nGood O\n",
        "-DOCSTART- -X- -X- O\n\nParis B-LOC\nsleeps O\n-DOCSTART-\nGood O\n",
        "-DOCSTART- O\nParis\tB-LOC\nsleeps\tO\n-DOCSTART-\tO\nGood\tO\n",
        "# id = 1\nParis\tB-LOC\nsleeps\tO\n\n# text = Good\nGood\tO\n",
        "# id 1\tdomain=en\nParis _ _ B-LOC\nsleeps _ _ O\n\n# id 2\tdomain=en\nGood _ _ O\n",
        "# id 1 domain=en\nParis _ _ B-LOC\nsleeps _ _ O\n\n# id 2 domain=en\nGood _ _ O\n",
        "# id = 1\n# a text\nParis B-LOC\nsleeps O\n\n# text = Good\nGood O\n",
        "# id = 1\tx\ty\nParis\tB-LOC\nsleeps\tO\n\n# a\tb\tc\nGood\tO\n",
    ],
)
def test_two_sentences_however_written(content: str, tmp_path: Path) -> None:
    assert pairs(tmp_path, content) == TWO


@pytest.mark.parametrize("space", ["\u00a0", "\u0085", "\u2028", "\u3000", "\x0c", "\x1c", "\x0b"])
@pytest.mark.parametrize("separator", ["\t", " "])
def test_odd_white_space_parts_neither_columns_nor_lines(
    space: str, separator: str, tmp_path: Path
) -> None:
    token = f"10{space}000"
    assert pairs(tmp_path, f"{token}{separator}B-X\nwon{separator}O\n") == [
        [(token, "B-X"), ("won", "O")]
    ]


def test_with_tabs_a_token_may_hold_spaces(tmp_path: Path) -> None:
    assert pairs(tmp_path, "New York\tB-LOC\nis\tO\n") == [[("New York", "B-LOC"), ("is", "O")]]


def test_a_hash_is_a_token_where_it_is_no_comment(tmp_path: Path) -> None:
    assert pairs(tmp_path, "# O\n1 O\n") == [[("#", "O"), ("1", "O")]]
    assert pairs(tmp_path, "# O\n") == [[("#", "O")]]
    assert pairs(tmp_path, "1 CD\n\n# #\n1 CD\n") == [[("1", "CD")], [("#", "#"), ("1", "CD")]]
    assert pairs(tmp_path, "#\tO\n# 1\tO\n") == [[("#", "O"), ("# 1", "O")]]


def test_a_comment_within_a_sentence_is_malformed(tmp_path: Path) -> None:
    _, (fault,) = conll.sentences(write(tmp_path, "EU O\n# no more\nvotes O\n"))
    assert ":2: columns: 3; expected 2, as in line 1" in str(fault)


def test_columns_between_have_their_number_for_a_name(tmp_path: Path) -> None:
    assert values(tmp_path, "EU NNP I-NP B-ORG\nvotes VBZ I-VP O\n") == [
        {
            "tokens": ["EU", "votes"],
            "column2": ["NNP", "VBZ"],
            "column3": ["I-NP", "I-VP"],
            "tags": ["B-ORG", "O"],
        }
    ]


def test_a_column_between_may_be_empty(tmp_path: Path) -> None:
    assert values(tmp_path, "EU\t\tO\n") == [{"tokens": ["EU"], "column2": [""], "tags": ["O"]}]


def test_one_column_is_an_unlabelled_file(tmp_path: Path) -> None:
    found, skipped = conll.sentences(write(tmp_path, "-DOCSTART- O\n\nEU\nvotes\n\nGood\n"))
    assert [s.values() for s in found] == [{"tokens": ["EU", "votes"]}, {"tokens": ["Good"]}]
    assert found[0].columns == skipped == []


@pytest.mark.parametrize("content", ["", "\n \n\t\n", "-DOCSTART- O\n"])
def test_a_file_without_tokens_has_no_sentences(content: str, tmp_path: Path) -> None:
    assert conll.sentences(write(tmp_path, content)) == ([], [])


def test_a_sentence_knows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "# id\n\nEU\tO\nvotes\tO\n\n\n# id\nGood\tO\n")
    assert [sentence.line for sentence in conll.sentences(path)[0]] == [3, 8]


MALFORMED = [
    # (content, line, what was found and what was expected)
    ("EU O\nvotes\nno O\n", 2, r"columns: 1; expected 2, as in line 1 \(spaces part"),
    ("\nEU NN O\nvotes O\nno NN O\n", 3, "columns: 2; expected 3, as in line 2"),
    ("EU\tO\nvotes\tVBZ\tO\nno\tO\n", 2, r"columns: 3; expected 2, as in line 1 \(tabs part"),
    ("EU\tO\n\tO\nno\tO\n", 2, "the token is empty"),
    ("EU\tO\n \tO\nno\tO\n", 2, "the token is empty"),
    ("EU\tO\n\u00a0\tO\nno\tO\n", 2, "the token is empty"),
    ("EU O\n\u00a0 O\nno O\n", 2, "the token is empty"),
    ("EU\tO\nvotes\t\nno\tO\n", 2, "the tag is empty"),
    ("\tO\nEU\tO\nno\tO\n", 1, "the token is empty"),
    ("EU\nvo tes\nno\n", 2, "columns: 2; expected 1, as in line 1"),
    ("the NN O\nEU O\nno O\n", 1, r"columns: 3; expected 2, as in line 2 \(spaces part"),
    ("EU O\nvotes\tO\nno O\n", 2, r"columns: 1; expected 2, as in line 1 \(spaces part"),
    ("the O\nEU\tO\nno\tO\n", 1, r"columns: 1; expected 2, as in line 2 \(tabs part"),
    ("EU\nvotes\tO\nno\n", 2, "a tab; expected spaces alone"),
    ("EU\tO\nvo\rtes\tO\nno\tO\n", 2, "a carriage return within the line"),
]


@pytest.mark.parametrize(("content", "line", "message"), MALFORMED)
def test_a_malformed_line_is_told_and_left_out(
    content: str, line: int, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, content)
    found, (fault,) = conll.sentences(path)
    assert re.match(rf"{re.escape(str(path))}:{line}: {message}", str(fault))
    assert repr(content.split("\n")[line - 1]) in str(fault)
    assert [sentence.tokens for sentence in found] == [["EU", "no"]]


def test_line_ends_of_old_macs_are_refused(tmp_path: Path) -> None:
    found, (fault,) = conll.sentences(write(tmp_path, "EU O\rvotes O\r"))
    assert ":1: a carriage return within the line" in str(fault)
    assert not found


def test_a_long_line_is_cut_in_the_message(tmp_path: Path) -> None:
    _, (fault,) = conll.sentences(write(tmp_path, f"EU O\n{'x' * 5000}\n"))
    assert len(str(fault)) < 400 + len(str(tmp_path))


def test_another_encoding_is_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(UnicodeDecodeError):
        conll.sentences(write(tmp_path, "café O\n".encode("latin1")))


# --- schemes -----------------------------------------------------------------------------------

SCHEMES = [
    # (sentences, scheme)
    (["B-PER I-PER O", "O B-LOC B-LOC"], "BIO"),
    (["B-PER", "O B-LOC B-LOC"], "BIO"),
    (["O I-PER O", "B-PER O B-LOC I-LOC"], "BIO"),  # one stray I- against two B-
    (["I-PER O B-PER O"], "BIO"),  # a tie
    (["O O"], "BIO"),  # no entities
    ([], "BIO"),
    (["I-PER I-PER O", "O I-LOC"], "IOB1"),
    (["I-PER I-PER B-PER O", "O I-LOC I-PER"], "IOB1"),  # B- only behind its own type
    (["I-PER B-LOC I-LOC O", "O I-LOC", "I-PER"], "IOB1"),  # one B- out of place against three
    (["B-PER E-PER O S-LOC", "B-PER I-PER E-PER"], "BIOES"),
    (["B-PER L-PER O U-LOC"], "BIOES"),
    (["B-PER M-PER E-PER O"], "BIOES"),
    (["O S-LOC"], "BIOES"),
    (["B I O B"], "BIO"),  # one type, not named
    (["I I O I"], "IOB1"),
    (["B E O S"], "BIOES"),
    (["DT NN VBZ ."], "plain"),
    (["-LRB- NN -RRB- :"], "plain"),
    (["B V S B E"], "plain"),  # letters that are parts of speech: V is no prefix
    (["N V O ^ V"], "plain"),  # parts of speech of tweets: O is a pronoun
    (["O PER PER", "O LOC"], "IO"),
    (["O COMMA O U-turn-ahead PERIOD"], "plain"),
    (["N-S---MN- V3SPIA--- I-------- O"], "plain"),  # one looks like a prefix
    (["B-creative-work I-creative-work O"], "BIO"),
]


@pytest.mark.parametrize(("sentences", "scheme"), SCHEMES)
def test_schemes_are_told_apart(sentences: list[str], scheme: str) -> None:
    assert conll.detect_scheme([s.split() for s in sentences], "x.conll") == scheme


@pytest.mark.parametrize(
    "tags", ["o b-per i-per", "O b-per O", "O B_PER I_PER", "O PER-B PER-I", "O loc_b b_loc"]
)
def test_prefixes_spelt_otherwise_are_refused_with_the_spelling_expected(tags: str) -> None:
    with pytest.raises(DataError, match=r"x\.conll: tags such as .*; expected B-PER"):
        conll.detect_scheme([tags.split()], "x.conll")


@pytest.mark.parametrize("odd", ["PER", "X-PER", "B-", "B", "b-PER", ""])
def test_a_tag_without_prefix_among_tags_with_one_is_refused(odd: str) -> None:
    sequences = [["B-PER", "I-PER", "O", odd, odd], ["B-LOC"] * 3]
    with pytest.raises(DataError, match=rf"x.conll: 1 tags, such as '{odd}' \(2 times\)"):
        conll.detect_scheme(sequences, "x.conll")


BIO = [
    # (scheme, tags, the same in IOB2)
    ("BIO", "B-PER I-PER O B-LOC B-LOC", "B-PER I-PER O B-LOC B-LOC"),
    ("BIO", "O I-PER I-PER O", "O B-PER I-PER O"),  # strays start entities
    ("BIO", "B-PER I-LOC I-PER", "B-PER B-LOC B-PER"),
    ("BIO", "B I O I", "B I O B"),
    ("IOB1", "I-PER I-PER B-PER I-PER I-LOC O I-LOC", "B-PER I-PER B-PER I-PER B-LOC O B-LOC"),
    ("IOB1", "O B-PER I-PER", "O B-PER I-PER"),
    ("BIOES", "B-PER I-PER E-PER S-PER O S-LOC", "B-PER I-PER I-PER B-PER O B-LOC"),
    ("BIOES", "B-PER I-PER L-PER U-PER O U-LOC", "B-PER I-PER I-PER B-PER O B-LOC"),
    ("BIOES", "B-PER M-PER E-PER S-LOC", "B-PER I-PER I-PER B-LOC"),
    ("BIOES", "B-PER E-PER B-PER E-PER", "B-PER I-PER B-PER I-PER"),
    ("BIOES", "E-PER I-PER S-PER I-PER O", "B-PER B-PER B-PER B-PER O"),  # broken
    ("BIOES", "B-PER E-LOC O I-PER E-PER", "B-PER B-LOC O B-PER I-PER"),
    ("BIOES", "B E O S", "B I O B"),
    ("IO", "PER PER O PER LOC LOC", "B-PER I-PER O B-PER B-LOC I-LOC"),
    ("plain", "DT NN I-PER", "DT NN I-PER"),
    ("BIO", "", ""),
]


@pytest.mark.parametrize(("scheme", "tags", "expected"), BIO)
def test_every_scheme_becomes_iob2(scheme: str, tags: str, expected: str) -> None:
    assert conll.to_bio(tags.split(), scheme) == expected.split()


def test_every_scheme_has_its_cases() -> None:
    assert {scheme for _, scheme in SCHEMES} == {"plain", "IO", *conll.PREFIXES}
    assert {scheme for scheme, _, _ in BIO} == {"plain", "IO", *conll.PREFIXES}


@pytest.mark.parametrize(("tag", "scheme"), [("E-PER", "BIO"), ("PER", "IOB1"), ("B-", "BIOES")])
def test_a_tag_of_another_scheme_is_refused(tag: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=f"'{tag}' is not of the scheme {scheme}"):
        conll.to_bio(["O", tag], scheme)


@pytest.mark.parametrize(
    ("tags", "scheme", "places"),
    [
        ("I-PER I-PER O I-PER B-LOC I-PER I-LOC", "BIO", [0, 3, 5, 6]),
        ("B-PER I-PER O B-LOC I-LOC", "BIO", []),
        ("B I I O I", "BIO", [4]),
        ("I-PER B-PER O I-LOC I-PER", "IOB1", []),
        ("B-PER I-PER O B-LOC I-PER B-LOC", "IOB1", [0, 3, 5]),
        ("S-PER B-PER I-PER E-PER S-PER O B-LOC L-LOC U-LOC", "BIOES", []),
        ("S-PER E-PER B-PER O I-LOC", "BIOES", [1, 3, 4, 5]),
        ("B-PER E-LOC B-PER B-PER E-PER", "BIOES", [1, 3]),
        ("PER PER O LOC", "IO", []),
        ("NN VB I-", "plain", []),
    ],
)
def test_misplaced_tags_are_found(tags: str, scheme: str, places: list[int]) -> None:
    assert conll.misplaced(tags.split(), scheme) == places


def test_no_entity_changes_on_the_way_to_iob2() -> None:
    # However broken the tags, the lenient reading before is the strict reading after.
    rng = random.Random(3)
    for _ in range(300):
        tags = rng.choices(["O", "B-X", "I-X", "B-Y", "I-Y"], k=rng.randint(0, 9))
        bio = conll.to_bio(tags, "BIO")
        assert entities.spans(bio, strict=True) == entities.spans(tags, strict=False)
        assert not conll.misplaced(bio, "BIO")
        assert conll.to_bio(bio, "BIO") == bio
