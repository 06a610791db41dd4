"""Mutations of valid inputs: a few random changes of the bytes or of the structure."""

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

# Byte strings that are difficult for parsers of JSON, CSV, XML and YAML, and for encodings, paths, numbers and spreadsheets.
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


def mutate_bytes(random: Random, content: bytes) -> bytes:
    """Change the bytes in one to four positions; in about 3 % of the calls, return unrelated random bytes."""
    if random.random() < 0.03:
        return random.randbytes(random.choice([0, 1, 8, 300]))
    mutated = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 4])):
        start = random.randrange(len(mutated) + 1)
        end = min(len(mutated), start + random.choice([1, 1, 4, 30, 1000]))
        change = random.randrange(8)
        if change == 0 and start < len(mutated):
            mutated[start] ^= 1 << random.randrange(8)
        elif change == 1:
            del mutated[start:end]
        elif change == 2:
            mutated[start:start] = mutated[start:end] * random.choice([1, 1, 20])
        elif change == 3:
            mutated[start:end] = random.choice(TOKENS)
        elif change == 4:
            mutated[start:start] = random.choice(TOKENS)
        elif change == 5:
            del mutated[start:]
        elif change == 6 and (numbers := list(re.finditer(rb"-?\d+(\.\d+)?", mutated))):
            match = random.choice(numbers)
            mutated[match.start() : match.end()] = random.choice(
                [b"-1", b"0", b"2", b"1e9", b"4294967296", b"NaN", b"true", b'"x"', b"9" * 40]
            )
        elif lines := bytes(mutated).splitlines(keepends=True):  # remove, repeat or move a line
            line = lines.pop(random.randrange(len(lines)))
            for _ in range(random.randrange(3)):
                lines.insert(random.randrange(len(lines) + 1), line)
            mutated = bytearray(b"".join(lines))
    return bytes(mutated)


def mutate_value(random: Random, value: Any) -> Any:
    """Remove, change, rename, copy or wrap one to three parts of a JSON value."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 2, 3])):
        entries: list[tuple[Any, Any]] = []  # (container, key or index)
        waiting = [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, (dict, list)):
                keys = list(part) if isinstance(part, dict) else list(range(len(part)))
                entries += [(part, key) for key in keys]
                waiting += [part[key] for key in keys]
        change = random.randrange(6)
        if not entries or random.random() < 0.02:
            value = copy.deepcopy(random.choice(VALUES))
            continue
        parent, key = random.choice(entries)
        if change == 0:
            del parent[key]
        elif change == 1 and isinstance(parent, dict):
            parent[random.choice(["", "x", "__proto__", str(key).upper(), "\ud800"])] = parent.pop(key)
        elif change == 2:
            parent[key] = [parent[key]] if random.random() < 0.5 else {"x": parent[key]}
        elif change == 3:
            source, source_key = random.choice(entries)
            if source_key in source if isinstance(source, dict) else source_key < len(source):
                parent[key] = copy.deepcopy(source[source_key])
        else:
            parent[key] = copy.deepcopy(random.choice(VALUES))
    return value


def mutate_json(random: Random, content: bytes) -> bytes:
    """Change the structure or the bytes of a JSON text."""
    if random.random() < 0.4:
        return mutate_bytes(random, content)
    return json.dumps(mutate_value(random, json.loads(content)), ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")


def mutate_json_lines(random: Random, content: bytes) -> bytes:
    """Change the structure of one line of a JSON Lines file, or the bytes of the file."""
    if random.random() < 0.4:
        return mutate_bytes(random, content)
    lines = content.splitlines(keepends=True)
    line_index = random.randrange(len(lines))
    lines[line_index] = mutate_json(random, lines[line_index].rstrip(b"\n")) + b"\n"
    return b"".join(lines)


def mutate_yaml(random: Random, content: bytes) -> bytes:
    """Change the structure of a YAML text and write it as JSON, which is valid YAML; or change its bytes."""
    if random.random() < 0.5:
        return mutate_bytes(random, content)
    return json.dumps(mutate_value(random, YAML(typ="safe").load(content))).encode()


def mutate_table(random: Random, content: bytes) -> bytes:
    """Remove, rename or convert columns of a Parquet file, or change its rows, values or bytes."""
    if random.random() < 0.3:
        return mutate_bytes(random, content)
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
            table[name] = pd.Series(values, dtype=table[name].dtype if all(type(value) is type(values[0]) for value in values) else object)
    buffer = io.BytesIO()
    try:
        table.to_parquet(buffer, index=False)
    except Exception:  # Parquet cannot store this table
        return mutate_bytes(random, content)
    return buffer.getvalue()
