"""`python -m tools.csp site`: give every built page a Content-Security-Policy, the last layer behind the escaping.

A page may load from its own host only, and run only the inline scripts that the theme put there, named by their hashes.
Each page is sealed once; a second run changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from pathlib import Path

MARK = '<meta http-equiv="Content-Security-Policy"'
INLINE = re.compile(r"<script(?![^>]*\bsrc=)(?![^>]*application/(?:ld\+)?json)[^>]*>(.*?)</script>", re.DOTALL)
POLICY = (
    "default-src 'none'; script-src 'self' {hashes}; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'"
)


def seal(page: str) -> str:
    """The page with its policy right after the declaration of its encoding."""
    if MARK in page:
        return page
    digests = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in INLINE.findall(page)}
    policy = POLICY.format(hashes=" ".join(f"'sha256-{digest}'" for digest in sorted(digests)))
    return page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n      {MARK} content="{policy}">', 1)


def main(argv: list[str] | None = None) -> int:
    (folder,) = argv if argv is not None else sys.argv[1:] or ["site"]
    for file in sorted(Path(folder).rglob("*.html")):
        page = file.read_bytes().decode("utf-8")
        sealed = seal(page)
        if sealed != page:
            file.write_bytes(sealed.encode("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
