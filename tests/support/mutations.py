"""Inputs that are nearly right: a real one with a few things changed, in its text or in its structure."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

# What parsers of JSON, CSV, XML and YAML, encodings, paths, numbers and spreadsheets stumble over.
TOKENS = [
    b"", b" ", b"\n", b"\r", b"\r\n", b"\t", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", "\u202e\u2028\x85".encode(),
    b'"', b"'", b"\\", b",", b":", b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 3000, b"\\ud83d", b"\\u0000", b"NaN",
    b"-Infinity", b"1e999", b"null", b"true", b'""', b"[]", b"{}", b"-1", b"0", b"1", b"2", b"0.5", b"18446744073709551616",
    b"9" * 5000, b"1e-400", b"0x1F",
    b"<", b">", b"</seg>", b"<seg>", b"<tu>", b"<tuv>", b"&amp;", b"&#0;", b"&x;", b"<![CDATA[", b"]]>", b"<a>" * 3000,
    b'<?xml version="1.0" encoding="utf-32"?>', b'<?xml version="1.0" encoding="nonsense"?>',
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY x "&b;&b;&b;&b;">]>',
    b'<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
    b"&a ", b"*a", b"&a [*a]", b"<<: ", b"!!bool x", b"!!python/object:os.system x", b"!!binary x", b"2001-99-99", b"? ", b"- ", b"---\n",
    b"%YAML 9.9\n",
    b"a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\ntrain: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n",
    b"a: &a {k: 1}\n" + b"".join(b"%c: &%c {<<: [%b]}\n" % (new, new, b",".join([b"*%c" % (new - 1)] * 9)) for new in b"bcdefghij"),
    b"=1+1", b"../../x", b"$(id)", b"x" * 5000,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, 2**31, 2**63, 2**64, 10**40, -(10**400), float("nan"), float("inf"), "", " ", "0",
    "1", "nan", "null", "a\0b", "\ud800", "\u202e", "x" * 5000, "../../x", "/", "=1+1", "<script>", "1.5", "qc", "en", "klingon", [], {},
    [[]], [None], {"": None},
    {"a": {"b": {"c": [1, "x"]}}}, ["x"] * 300, {str(number): number for number in range(300)},
]  # fmt: skip


def of_bytes(random: Random, content: bytes) -> bytes:
    """One to four changes of the bytes; now and then nothing of them is left."""
    if random.random() < 0.03:
        return random.randbytes(random.choice([0, 1, 8, 300]))
    found = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 4])):
        start = random.randrange(len(found) + 1)
        end = min(len(found), start + random.choice([1, 1, 4, 30, 1000]))
        change = random.randrange(8)
        if change == 0 and start < len(found):
            found[start] ^= 1 << random.randrange(8)
        elif change == 1:
            del found[start:end]
        elif change == 2:
            found[start:start] = found[start:end] * random.choice([1, 1, 20])
        elif change == 3:
            found[start:end] = random.choice(TOKENS)
        elif change == 4:
            found[start:start] = random.choice(TOKENS)
        elif change == 5:
            del found[start:]
        elif change == 6 and (numbers := list(re.finditer(rb"-?\d+(\.\d+)?", found))):
            number = random.choice(numbers)
            found[number.start() : number.end()] = random.choice(
                [b"-1", b"0", b"2", b"1e9", b"4294967296", b"NaN", b"true", b'"x"', b"9" * 40]
            )
        elif lines := bytes(found).splitlines(keepends=True):  # a whole line leaves, comes again or moves
            line = lines.pop(random.randrange(len(lines)))
            for _ in range(random.randrange(3)):
                lines.insert(random.randrange(len(lines) + 1), line)
            found = bytearray(b"".join(lines))
    return bytes(found)


def of_value(random: Random, value: Any) -> Any:
    """A value as JSON knows it with one to three of its parts gone, changed, renamed, repeated or wrapped."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 2, 3])):
        places: list[tuple[Any, Any]] = []
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, (dict, list)):
                keys = list(one) if isinstance(one, dict) else list(range(len(one)))
                places += [(one, key) for key in keys]
                waiting += [one[key] for key in keys]
        change = random.randrange(6)
        if not places or random.random() < 0.02:
            value = copy.deepcopy(random.choice(VALUES))
            continue
        parent, key = random.choice(places)
        if change == 0:
            del parent[key]
        elif change == 1 and isinstance(parent, dict):
            parent[random.choice(["", "x", "__proto__", str(key).upper(), "\ud800"])] = parent.pop(key)
        elif change == 2:
            parent[key] = [parent[key]] if random.random() < 0.5 else {"x": parent[key]}
        elif change == 3:
            other, there = random.choice(places)
            if there in other if isinstance(other, dict) else there < len(other):
                parent[key] = copy.deepcopy(other[there])
        else:
            parent[key] = copy.deepcopy(random.choice(VALUES))
    return value


def of_json(random: Random, content: bytes) -> bytes:
    """A JSON text with its structure changed, or its bytes."""
    if random.random() < 0.4:
        return of_bytes(random, content)
    return json.dumps(of_value(random, json.loads(content)), ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")


def of_json_lines(random: Random, content: bytes) -> bytes:
    """JSON lines with the structure of one changed, or the bytes."""
    if random.random() < 0.4:
        return of_bytes(random, content)
    lines = content.splitlines(keepends=True)
    number = random.randrange(len(lines))
    lines[number] = of_json(random, lines[number].rstrip(b"\n")) + b"\n"
    return b"".join(lines)


def of_yaml(random: Random, content: bytes) -> bytes:
    """A YAML text with its structure changed (and then written as JSON, which is YAML), or its bytes."""
    if random.random() < 0.5:
        return of_bytes(random, content)
    return json.dumps(of_value(random, YAML(typ="safe").load(content))).encode()


def of_table(random: Random, content: bytes) -> bytes:
    """A Parquet file with columns gone, renamed or of another type, with odd values or none, or its bytes."""
    if random.random() < 0.3:
        return of_bytes(random, content)
    table = pd.read_parquet(io.BytesIO(content))
    for _ in range(random.choice([1, 1, 2])):
        if not len(table.columns):
            break
        name = random.choice(list(table.columns))
        change = random.randrange(8)
        if change == 0:
            table = table.drop(columns=name)
        elif change == 1:
            table = table.rename(columns={name: random.choice(["x", "", name.upper(), "label", "é\n"])})
            table = table.loc[:, ~table.columns.duplicated()]
        elif change == 2:
            table = table.iloc[: random.choice([0, 1, 3])]
        elif change == 3:
            table = pd.concat([table, table.iloc[:2]], ignore_index=True)
        elif change == 4:
            kinds: list[Callable[[int], Any]] = [
                lambda n: n,
                float,
                lambda n: bool(n % 2),
                lambda n: [str(n)],
                lambda n: None,
                lambda n: b"\xff",
            ]
            table[name] = list(map(random.choice(kinds), range(len(table))))
        elif change == 5:
            table[name] = random.choice(["", " ", "x" * 5000, "\0", 0, 1, 2, -1, 0.5, float("nan"), 1e308])
        elif change == 6:
            table[name] = table[random.choice(list(table.columns))]
        elif len(table):
            values = table[name].tolist()
            values[random.randrange(len(values))] = random.choice([None, values[0], values[-1], ""])
            table[name] = pd.Series(values, dtype=table[name].dtype if all(type(one) is type(values[0]) for one in values) else object)
    made = io.BytesIO()
    try:
        table.to_parquet(made, index=False)
    except Exception:  # a table that Parquet cannot hold is no input
        return of_bytes(random, content)
    return made.getvalue()
