"""Lines of keys in TOML: in this document each number, written @, is the line it should be found on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest

from common.tomlmap import Path, lines

TEMPLATE = '''top = @
"quoted key" = @ # "a comment" = [
'literal' . "dotted\\u0020" = @
[table] # [not.this]
a = @
text = """
b = 0
\\""" c = 0 """
d = @
raw = \'\'\'
'' e = 0 [[x]]
\'\'\'
e = @
f = "a \\" # b" # = 0
g = @
list = [ @, # ]
  @, [@], { x = @ },

  "]", \'}\', @, """
]""", @ ]
h = { i = @, j.k = @, l = [ @,
@ ] }
 [ table . inner ]
m = @
[[array]]
n = @
[array.sub]
o = @
[[array.many]]
p = @
[[array.many]]
p = @
[[array]]
n = @
[[array.many]]
p = @
[x.y.z]
date = 1979-05-27T07:32:00Z
q = @
[x]
r = @
empty = {}
none = []
s = """a"""""
t = @
'''
EVERYTHING = "".join(line.replace("@", str(i)) for i, line in enumerate(TEMPLATE.splitlines(keepends=True), 1))


def leaves(value: object, path: Path = ()) -> Iterator[tuple[Path, int]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from leaves(each, (*path, i))
    elif isinstance(value, int) and value:
        yield path, value


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_value_is_found_on_its_line(end: str) -> None:
    text = EVERYTHING.replace("\n", end)
    found = lines(text)
    expected = dict(leaves(tomllib.loads(text)))
    assert len(expected) > 20
    assert {path: found[path] for path in expected} == expected


def test_tables_and_elements_are_found_at_their_headers() -> None:
    found = lines(EVERYTHING)
    headers: dict[Path, str] = {
        ("table",): "[table] # [not.this]",
        ("table", "inner"): " [ table . inner ]",
        ("array", 0): "[[array]]",
        ("array", 0, "sub"): "[array.sub]",
        ("x", "y"): "[x.y.z]",
    }
    text = EVERYTHING.splitlines()
    assert {path: text[found[path] - 1] for path in headers} == headers
    assert text[found["array", 0, "many", 1] - 1] == text[found["array", 1, "many", 0] - 1] == "[[array.many]]"
    assert text[found["table", "list"] - 1].startswith("list = [")
