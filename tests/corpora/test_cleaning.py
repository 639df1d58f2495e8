import pytest

from sememe.corpora.cleaning import code, excerpt, page, prose, tidy, without_markup


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("didn #39;t quot;go quot;", 'didn \'t "go "'),
        ("a &amp;amp; b &lt;c&gt;", "a & b <c>"),
        ("one<br />two<BR>three", "one\ntwo\nthree"),
        ('said \\"no\\"\\nand left', 'said "no"\nand left'),
        ("nul\0bell\x07c1\x96\ufeff", "nulbellc1"),
        ("a \t\nb\r\n\r\n\r\n\r\nc\rd", "a\nb\n\nc\nd"),
        ("café 語 — “quoted” 😀", "café 語 — “quoted” 😀"),
    ],
)
def test_prose(raw, plain):
    assert prose(raw) == plain


def test_tidy_keeps_indentation():
    assert tidy("def f():\n    return 1   \n") == "def f():\n    return 1"


def test_markup_goes_and_text_stays():
    markup = (
        "<html><head><title>T</title><style>p{}</style></head><body><h1>Head</h1>"
        "<p>One &amp; <b>two</b>\n three<br>four</p><script>x()</script><ul><li>a</li><li>b</li>"
    )
    assert without_markup(markup) == "Head\n\nOne & two three\nfour\n\na\n\nb"


def test_code_loses_its_broken_first_line_and_licence_only():
    licence = (
        "ht 2014 Someone\n *\n * Licensed under X; no warranty\n */\n\n#include <a.h>\nint x;\n"
    )
    assert code(licence) == "#include <a.h>\nint x;"
    unstarred = "ftware licence\n    without any warranty.\n*/\nimport a;\nclass B {}\n"
    assert code(unstarred) == "import a;\nclass B {}"
    python = "# Copyright me\n# License: MIT\n\nimport os\n\nx = 1\n"
    assert code(python) == "import os\n\nx = 1"
    plain = "tail of a line\n# what it does\nx = 1\ny = 2\n"
    assert code(plain) == "# what it does\nx = 1\ny = 2"


def test_pages_and_excerpts_begin_with_something_whole():
    assert page('ext/html; charset="x">\n<head>') == "<head>"
    assert page("no tag at all") == "no tag at all"
    assert excerpt(" , and so. Then") == "and so. Then"
    assert excerpt('"Well," he said') == '"Well," he said'
