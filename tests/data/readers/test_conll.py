"""Column files: what is a token, a sentence, a mistake; and the schemes of tags."""

import collections
import random
import re
from pathlib import Path

import pytest

from flaxbert.data import tag_schemes
from flaxbert.data.checks import Issue
from flaxbert.data.readers import conll
from flaxbert.errors import DataError
from flaxbert.metrics import entities


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "data.conll"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(tmp_path: Path, content: str | bytes) -> list[dict[str, list[str]]]:
    return [sentence.values() for sentence in conll.sentences(write(tmp_path, content))[0]]


def pairs(tmp_path: Path, content: str | bytes) -> list[list[tuple[str, str]]]:
    """(token, tag) of every token of a labeled file."""
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


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("# SYM\n1 NUM\n\nThe DET\ndog NOUN\n", ["#", "1"]),  # nowhere else is a SYM
        ("# B-MISC\n1 O\n\nParis B-LOC\n", ["#", "1"]),
        ("# sym\n1 num\n\nthe # \n# sym\n", ["#", "1"]),  # inside a sentence it is a tag
    ],
)
def test_a_hash_with_a_tag_of_its_own_is_a_token(
    content: str, tokens: list[str], tmp_path: Path
) -> None:
    found, findings = conll.sentences(write(tmp_path, content))
    assert found[0].tokens == tokens
    assert not findings


@pytest.mark.parametrize(
    "content",
    [
        "# intro\n1 NUM\n\n# more\n2 NUM\n",
        "# sym\n1 num\n\n# sym\n2 num\n",  # perhaps a token, and so reported
        "# TITLE\n1 O\n\n# TITLE\n2 B-LOC\n",
        "# 1\n1 NUM\n\n# 2\n2 NUM\n",
    ],
)
def test_lines_that_may_be_comments_are_reported(content: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    found, (finding,) = conll.sentences(path)
    assert [sentence.tokens for sentence in found] == [["1"], ["2"]]
    assert isinstance(finding, Issue)
    assert f"{path}:1: lines read as comments: 2, such as '# " in str(finding)


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
    assert not skipped


@pytest.mark.parametrize("content", ["", "\n \n\t\n", "-DOCSTART- O\n"])
def test_a_file_without_tokens_has_no_sentences(content: str, tmp_path: Path) -> None:
    assert conll.sentences(write(tmp_path, content)) == ([], [])


def test_a_sentence_knows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "# id\n\nEU\tO\nvotes\tO\n\n\n# id\nGood\tO\n")
    assert [sentence.lines[0] for sentence in conll.sentences(path)[0]] == [3, 8]


MALFORMED = [
    # (content, line, what was found and what was expected)
    (
        "EU O\nvotes\nno O\n",
        2,
        r"columns: 1; expected 2, as in line 1 \(columns are separated by spaces here\)",
    ),
    ("\nEU NN O\nvotes O\nno NN O\n", 3, "columns: 2; expected 3, as in line 2"),
    (
        "EU\tO\nvotes\tVBZ\tO\nno\tO\n",
        2,
        r"columns: 3; expected 2, as in line 1 \(columns are separated by tabs here\)",
    ),
    ("EU\tO\n\tO\nno\tO\n", 2, "the token is empty"),
    ("EU\tO\n \tO\nno\tO\n", 2, "the token is empty"),
    ("EU\tO\n\u00a0\tO\nno\tO\n", 2, "the token is empty"),
    ("EU O\n\u00a0 O\nno O\n", 2, "the token is empty"),
    ("EU\tO\nvotes\t\nno\tO\n", 2, "the tag is empty"),
    ("\tO\nEU\tO\nno\tO\n", 1, "the token is empty"),
    ("EU\nvo tes\nno\n", 2, "columns: 2; expected 1, as in line 1"),
    (
        "the NN O\nEU O\nno O\n",
        1,
        r"columns: 3; expected 2, as in line 2 \(columns are separated by spaces here\)",
    ),
    (
        "EU O\nvotes\tO\nno O\n",
        2,
        r"columns: 1; expected 2, as in line 1 \(columns are separated by spaces here\)",
    ),
    (
        "the O\nEU\tO\nno\tO\n",
        1,
        r"columns: 1; expected 2, as in line 2 \(columns are separated by tabs here\)",
    ),
    ("EU\nvotes\tO\nno\n", 2, "a tab; expected spaces alone"),
    ("EU\tO\nvo\rtes\tO\nno\tO\n", 2, "a carriage return within the line"),
]


@pytest.mark.parametrize(("content", "line", "message"), MALFORMED)
def test_a_malformed_line_is_reported_and_left_out(
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
def test_schemes_are_detected(sentences: list[str], scheme: str) -> None:
    assert tag_schemes.detect_scheme([s.split() for s in sentences]) == scheme


RESPELLED = [
    # (tags, the same in the usual spelling)
    ("0 B-PER E-PER 0 S-LOC 0", "O B-PER E-PER O S-LOC O"),
    ("_ B-PER I-PER _", "O B-PER I-PER O"),
    ("OTHER B-PER OTHER", "O B-PER O"),
    ("NEGATIVE B-PER NEGATIVE", "O B-PER O"),  # the only one without a prefix
    ("O B-PER 0 o", "O B-PER O O"),
    ("0 B I 0", "O B I O"),
    ("PER 0 0 LOC", "PER O O LOC"),  # IO
    ("_ _ PER LOC PER LOC _", "O O PER LOC PER LOC O"),
    ("0 PER PER LOC", "0 PER PER LOC"),  # not the most frequent
    ("O 0 0 0 PER", "O O O O PER"),
    ("0 0 1 2", "0 0 1 2"),  # numbers of classes
    ("o b-per i-per", "O B-per I-per"),
    ("O b-per O", "O B-per O"),
    ("O B_PER I_PER s_per", "O B-PER I-PER S-per"),
    ("O PER-B PER-I PER-E", "O B-PER I-PER E-PER"),
    ("0 loc_b loc_i", "O B-loc I-loc"),
    # These are as they should be, or are no marks of entities.
    *((tags, tags) for sentences, _ in SCHEMES for tags in sentences),
    ("DT NN VBZ _", "DT NN VBZ _"),
    ("NN-S VB-D O", "NN-S VB-D O"),
    ("N _ V 0", "N _ V 0"),
    ("B V S -", "B V S -"),
    ("O B-PER PER", "O B-PER PER"),  # a mistake, or IO: it has no place outside
    (" ".join(["B-PER"] * 20 + ["PER"]), " ".join(["B-PER"] * 20 + ["PER"])),
]


@pytest.mark.parametrize(("tags", "usual"), RESPELLED)
def test_tags_in_other_spellings_are_read_as_the_usual_ones(tags: str, usual: str) -> None:
    spelled = tag_schemes.respelled(collections.Counter(tags.split()))
    assert [spelled.get(tag, tag) for tag in tags.split()] == usual.split()


@pytest.mark.parametrize("odd", ["PER", "X-PER", "B-", "B", "b-PER", ""])
def test_a_tag_without_prefix_among_tags_with_one_is_odd(odd: str) -> None:
    sequences = [["B-PER", "I-PER", "O", odd, odd], ["B-LOC"] * 3]
    assert tag_schemes.detect_scheme(sequences) == "BIO"
    assert tag_schemes.odd_tags({tag for tags in sequences for tag in tags}) == {odd}


# --- columns -----------------------------------------------------------------------------------

NUMBERED = [
    "1 Anna NNP B-PER\n2 saw VBD O\n\n1 Good JJ O\n",
    "0 Anna NNP B-PER\n1 saw VBD O\n\n0 Good JJ O\n",
    "1 Anna NNP B-PER\n2 saw VBD O\n\n3 Good JJ O\n",  # through the file
    "1\tAnna\tNNP\tB-PER\n2\tsaw\tVBD\tO\n\n1\tGood\tJJ\tO\n",
    "# a b c d e\n1 Anna NNP B-PER\n2 saw VBD O\n\n# f\n1 Good JJ O\n",
]


@pytest.mark.parametrize("content", NUMBERED)
def test_a_column_that_numbers_the_words_is_left_out_with_a_message(
    content: str, tmp_path: Path
) -> None:
    found, (remark,) = conll.sentences(write(tmp_path, content))
    assert [s.values() for s in found] == [
        {"tokens": ["Anna", "saw"], "column3": ["NNP", "VBD"], "tags": ["B-PER", "O"]},
        {"tokens": ["Good"], "column3": ["JJ"], "tags": ["O"]},
    ]
    assert isinstance(remark, Issue)
    assert "the first column numbers the words and is left out" in str(remark)


@pytest.mark.parametrize(
    "content",
    [
        "1 CD O\n3 CD O\n",
        "2 CD O\n3 CD O\n",
        "1 CD O\n\n1 CD O\n",  # sentences of one word
        "1 O\n2 O\n",  # two columns: these may be the words
        "1 CD O\nEU NN O\n",
    ],
)
def test_words_that_are_numbers_stay(content: str, tmp_path: Path) -> None:
    found, remarks = conll.sentences(write(tmp_path, content))
    assert found[0].tokens[0] in "12"
    assert not remarks


def test_numbered_words_without_tags_are_read(tmp_path: Path) -> None:
    found, (remark,) = conll.sentences(write(tmp_path, "1 Anna\n2 saw\n\n1 Good\n"))
    assert [s.values() for s in found] == [{"tokens": ["Anna", "saw"]}, {"tokens": ["Good"]}]
    assert "numbers the words" in str(remark)


CONLLU = """# newdoc id = a
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\tv\tMood=Imp\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tp\t_\t1\tobj\t_\t_
3\tmar\tmar\tNOUN\tn\t_\t1\tobl\t_\t_
3.1\tfue\tser\tAUX\tv\t_\t_\t_\t1:x\t_

# text = Bien
1\tBien\tbien\tADV\tr\t_\t0\troot\t_\tSpaceAfter=No
"""


def test_conllu_gives_its_words_and_parts_of_speech(tmp_path: Path) -> None:
    found, (remark,) = conll.sentences(write(tmp_path, CONLLU))
    assert [s.tokens for s in found] == [["Vamos", "nos", "mar"], ["Bien"]]
    assert [s.columns["tags"] for s in found] == [["VERB", "PRON", "NOUN"], ["ADV"]]
    assert found[0].columns["xpos"] == ["v", "p", "n"]
    assert [s.lines for s in found] == [[4, 5, 6], [10]]
    assert "the words are the column FORM, the tags UPOS; 2 lines of several" in str(remark)


def test_named_columns_are_those_that_are_read(tmp_path: Path) -> None:
    columns = ["index", "word", "lemma", "upos", "tag", "feats", "head", "deprel", "deps", "misc"]
    path = write(tmp_path, "\n".join(line for line in CONLLU.split("\n") if "-" not in line[:3]))
    found, remarks = conll.sentences(path, columns=columns)
    assert not remarks
    assert found[0].tokens == ["Vamos", "nos", "mar", "fue"]
    assert found[0].columns["tags"] == ["v", "p", "n", "v"]
    path = write(tmp_path, "B-PER Anna\nO saw\n")
    (sentence,), _ = conll.sentences(path, columns=["tag", "word"])
    assert sentence.values() == {"tokens": ["Anna", "saw"], "tags": ["B-PER", "O"]}


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("B-PER Anna\nO saw\n", [], r":1: the first column holds tags.*columns=tag,word\."),
        (
            "d1 0 Anna B-PER\nd1 1 saw O\n\n" * 5,
            [],
            r":1: the first column has one value per sentence, such as 'd1'"
            r".*=column1,column2,word,tag",
        ),
        (  # where words begin in the text
            "0 Anna B-PER\n5 saw O\n9 Bob B-PER\n\n" * 4,
            [],
            r":1: the first column has numbers, such as '0'.*=column1,word,tag\.",
        ),
        ("Anna B-PER\n", ["index", "word", "tag"], ":1: columns: 2, but data.columns names 3"),
        ("Anna B-PER\n", ["text", "label"], "names no column 'word'"),
    ],
)
def test_columns_in_another_order_are_refused_with_the_option(
    content: str, columns: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        conll.sentences(write(tmp_path, content), columns=columns)


def test_marks_of_documents_and_comments_are_no_words(tmp_path: Path) -> None:
    content = "#begin document (bc/cctv/00); part 000\nAnna B-PER\nsaw O\n#end document\n"
    assert pairs(tmp_path, content) == [[("Anna", "B-PER"), ("saw", "O")]]
    assert pairs(tmp_path, "# newdoc\nAnna B-PER\nsaw O\n") == [[("Anna", "B-PER"), ("saw", "O")]]


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
    assert tag_schemes.to_bio(tags.split(), scheme) == expected.split()


def test_every_scheme_has_its_cases() -> None:
    assert {scheme for _, scheme in SCHEMES} == {"plain", "IO", *tag_schemes.PREFIXES}
    assert {scheme for scheme, _, _ in BIO} == {"plain", "IO", *tag_schemes.PREFIXES}


@pytest.mark.parametrize(("tag", "scheme"), [("E-PER", "BIO"), ("PER", "IOB1"), ("B-", "BIOES")])
def test_a_tag_of_another_scheme_is_refused(tag: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=f"'{tag}' does not belong to the scheme {scheme}"):
        tag_schemes.to_bio(["O", tag], scheme)


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
    assert tag_schemes.misplaced(tags.split(), scheme) == places


def test_no_entity_changes_on_the_way_to_iob2() -> None:
    # However broken the tags, the lenient reading before is the strict reading after.
    rng = random.Random(3)
    for _ in range(300):
        tags = rng.choices(["O", "B-X", "I-X", "B-Y", "I-Y"], k=rng.randint(0, 9))
        bio = tag_schemes.to_bio(tags, "BIO")
        assert entities.spans(bio, strict=True) == entities.spans(tags, strict=False)
        assert not tag_schemes.misplaced(bio, "BIO")
        assert tag_schemes.to_bio(bio, "BIO") == bio


@pytest.mark.parametrize(
    ("labels", "entities"),
    [
        (["O", "B-PER", "I-PER"], True),
        (["O", "B", "I"], True),
        (["B-PER", "I-PER", "O", "MISC"], True),
        (["O"], False),
        (["O", "PER", "LOC"], False),
        (list("ACDFINPRSVWZ"), False),  # parts of speech of AnCora; I is an interjection
    ],
)
def test_labels_with_prefixes_mark_entities(labels, entities):
    assert tag_schemes.mark_entities(labels) == entities


def test_many_words_without_a_token_are_filled_in_one_pass():
    tags = ["B-PER", *[None] * 100_000, "I-PER", None]
    assert tag_schemes.filled(tags, "O") == ["B-PER", *["I-PER"] * 100_001, "O"]
