"""A path below a root, in the URL of a route: names of files may hold whatever they like, a line's end too.

Starlette's own `path` ends where a line does: what stands behind that would be dropped, and another file be given.
"""

from __future__ import annotations

from typing import Final

from starlette.convertors import Convertor, register_url_convertor


class _Whole(Convertor[str]):
    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("whole", _Whole())

PATH: Final = "{path:whole}"
"""The rest of a URL's path, in a route."""
