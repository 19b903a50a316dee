"""Requests made from a description in the form of OpenAPI, good and bad ones, and what an answer may be."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

ODD = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "../../etc/passwd",
            "..%2f..",
            "\0",
            "a\r\nx: y",
            "%00",
            "é" * 9,
            "-1",
            "9" * 30,
            "NaN",
            "bafy",
        ]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ODD),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@dataclass
class Asked:
    """One request, and the operation of the description that it is made from."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes | None
    headers: dict[str, str]
    operation: dict[str, Any] = field(repr=False)
    is_good: bool = True

    @property
    def target(self) -> str:
        query = "&".join(f"{quote(key)}={quote(value)}" for key, value in self.query.items())
        return f"{self.path}?{query}" if query else self.path


def of_schema(schema, known) -> st.SearchStrategy:
    """Values that a schema allows; a text is often one that means something to the node."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "integer":
        return st.integers(schema.get("minimum", 0), schema.get("maximum", 2**63 - 1))
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        return st.lists(of_schema(schema["items"], known), min_size=1, max_size=2)
    if "pattern" in schema:
        return st.sampled_from(known["path"])
    most = min(60, schema.get("maxLength", 60))
    printable = st.text(
        st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=most
    )
    return st.one_of(st.sampled_from(known["text"]), printable)


@st.composite
def requests(draw, description, known, skip=()):
    """A request to one of the described operations, and whether all of it is as described."""
    operations = [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if (method, path) not in skip
    ]
    path, method, operation = draw(st.sampled_from(operations))
    asked = Asked(method.upper(), path, {}, None, {}, operation)
    for one in operation.get("parameters", ()):
        value = draw(of_schema(one["schema"], known))
        if one["in"] == "path":
            odd = draw(st.booleans())
            text = draw(ODD) if odd else str(value)
            asked.is_good &= not odd
            asked.path = asked.path.replace(f"{{{one['name']}}}", quote(text, safe=""))
        elif one["required"] or draw(st.booleans()):
            asked.query[one["name"]] = str(value)
    if draw(st.integers(0, 9)) == 0:
        asked.query[draw(st.sampled_from([*asked.query, "more"]))] = draw(ODD)
        asked.is_good = False
    wanted = operation.get("requestBody")
    if wanted is not None:
        _body(draw, asked, wanted["content"]["application/json"]["schema"], known)
    return asked


def _body(draw, asked, schema, known) -> None:
    asked.headers["content-type"] = "application/json"
    must = schema.get("required", ())
    fields = {
        name: draw(of_schema(one, known))
        for name, one in schema["properties"].items()
        if name in must or draw(st.booleans())
    }
    fault = draw(st.sampled_from(["none", "none", "field", "json", "bytes", "type", "missing"]))
    if fault == "field" and schema["properties"]:
        fields[draw(st.sampled_from(sorted(schema["properties"])))] = draw(JSON)
    if fault == "missing" and fields:
        fields.pop(draw(st.sampled_from(sorted(fields))))
    asked.body = json.dumps(draw(JSON) if fault == "json" else fields).encode()
    if fault == "bytes":
        asked.body = draw(st.binary(max_size=60))
    if fault == "type":
        asked.headers["content-type"] = draw(
            st.sampled_from(["text/plain", "application/x-www-form-urlencoded", "x" * 200])
        )
    asked.is_good &= fault == "none"


def fits(value, schema, description) -> bool:
    """Whether a value is what a schema of ours says."""
    if "$ref" in schema:
        found: Any = description
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return fits(value, found, description)
    kinds = {"object": dict, "string": str, "integer": int, "array": list, "null": type(None)}
    named = schema.get("type", [])
    wanted = tuple(kinds[one] for one in ([named] if isinstance(named, str) else named))
    if wanted and not isinstance(value, wanted):
        return False
    if not isinstance(value, dict):
        return True
    return all(name in value for name in schema.get("required", ())) and all(
        fits(value[name], one, description)
        for name, one in schema.get("properties", {}).items()
        if name in value
    )


def check(asked, answer, description, others=()) -> None:
    """The answer has a described status, type and form; no answer is a fault of the node's.

    Args:
        asked: The request.
        answer: Of httpx.
        description: All of it.
        others: Statuses that are no operation's own: no such route, no such method.
    """
    assert answer.status_code != 500, (asked, answer.text)
    told = asked.operation["responses"].get(str(answer.status_code))
    if told is None:
        assert answer.status_code in others, (asked, answer.status_code, answer.text)
        return
    if answer.headers["content-type"] not in told["content"]:
        raise AssertionError(asked, answer.headers["content-type"])
    kind = answer.headers["content-type"]
    if kind == "application/json":
        assert fits(answer.json(), told["content"][kind]["schema"], description), answer.text
