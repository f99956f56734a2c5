"""Put Swagger UI's files beside our own page for it: downloaded by npm, checked by their SHA-256, compressed.

python -m tools.vendor_swagger_ui

They lie in the repository and in the wheel, so that `/docs` works offline. For a newer version, exchange the version
and the hashes (`npm pack swagger-ui-dist`, then `sha256sum`), and look at the page.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from nameplate.storage import whole_file
from nameplate.web.npm import NpmFiles

TARGET = Path(__file__).parents[1] / "src" / "nameplate" / "serve" / "swagger_ui"
FILES = NpmFiles(
    "swagger-ui-dist",
    "5.35.0",
    {
        "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
        "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
        "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
        "NOTICE": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
        "swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
    },
    "Vendoring needs",
    "or leave the files as they are",
)
"""The hashes are of 2026-11-28."""
SENT = ("swagger-ui-bundle.js", "swagger-ui.css")
"""The files that a browser gets."""
TERMS = "LICENSES.txt"
"""The licences of all that is in them, in one file."""


def vendored(files: dict[str, bytes]) -> dict[str, bytes]:
    """What is written: name → bytes."""
    packed = {f"{name}.gz": gzip.compress(files[name], 9, mtime=0) for name in SENT}
    head = f"{FILES.package} {FILES.version}, from npm, unchanged but compressed".encode()
    terms = [head, *(files[name].strip() for name in FILES.hashes if name not in SENT)]
    return packed | {TERMS: b"\n\n".join(terms) + b"\n"}


def main() -> None:
    """Download and write."""
    for name, data in vendored(FILES.download()).items():
        with whole_file(TARGET / name) as temporary:
            temporary.write_bytes(data)
        print(f"{len(data):9,} bytes  {TARGET / name}")


if __name__ == "__main__":
    main()
