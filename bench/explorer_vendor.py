"""The explorer's four JavaScript libraries: refresh them from npm, or verify what is here.

    python bench/explorer_vendor.py            verify the files against vendor/VENDOR.json
    python bench/explorer_vendor.py --refresh  fetch the pinned versions and write them anew

The files are byte-identical to those of the published packages, but for the line that names a
source map, which is not shipped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src/exemplars/explorer/static/vendor"
PINNED = {
    "preact": ("11.2.0", {"preact.js": "dist/preact.mjs", "hooks.js": "hooks/dist/hooks.mjs"}),
    "@preact/signals": ("2.11.4", {"signals.js": "dist/signals.module.js"}),
    "@preact/signals-core": ("1.14.5", {"signals-core.js": "dist/signals-core.module.js"}),
    "htm": ("3.1.1", {"htm.js": "dist/htm.module.js"}),
}  # fmt: skip
_SOURCE_MAP = re.compile(rb"\n?//# sourceMappingURL=.*\n?$")


def refresh() -> None:
    """Fetch the pinned packages, check their integrity, and write files, hashes and licences."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    entries, licences = [], []
    with tempfile.TemporaryDirectory() as folder:
        for package, (version, files) in PINNED.items():
            packed = json.loads(_npm("pack", "--json", f"{package}@{version}", cwd=folder))
            record = packed[0] if isinstance(packed, list) else next(iter(packed.values()))
            archive = Path(folder) / record["filename"]
            digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if f"sha512-{digest}" != record["integrity"]:
                raise SystemExit(f"{package}@{version} is not what the registry says it is")
            with tarfile.open(archive) as tar:
                about = json.loads(_read(tar, "package.json"))
                licences.append(f"{package} {version}\n\n{_licence(tar)}")
                for name, source in files.items():
                    data = _SOURCE_MAP.sub(b"\n", _read(tar, source))
                    (VENDOR / name).write_bytes(data)
                    entries.append({
                        "file": name, "package": package, "version": version, "source": source,
                        "integrity": record["integrity"], "licence": about["license"],
                        "sha256": hashlib.sha256(data).hexdigest(),
                    })  # fmt: skip
    (VENDOR / "VENDOR.json").write_text(json.dumps(entries, indent=1) + "\n")
    (VENDOR / "LICENSES.txt").write_text(("\n\n" + "-" * 79 + "\n\n").join(licences))


def wrong() -> list[str]:
    """What differs from VENDOR.json: a sentence for each file."""
    entries = json.loads((VENDOR / "VENDOR.json").read_text())
    found = []
    for entry in entries:
        path = VENDOR / entry["file"]
        if not path.exists():
            found.append(f"{path.name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            found.append(f"{path.name} is not the pinned {entry['package']} {entry['version']}")
    known = {entry["file"] for entry in entries}
    found += [f"{p.name} is in no package" for p in VENDOR.glob("*.js") if p.name not in known]
    return found


def _npm(*arguments: str, cwd: str) -> str:
    return subprocess.run(
        ["npm", *arguments], capture_output=True, text=True, check=True, cwd=cwd
    ).stdout


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(f"package/{name}")
    if member is None:
        raise SystemExit(f"{name} is not in the package")
    return member.read()


def _licence(tar: tarfile.TarFile) -> str:
    name = next(n for n in tar.getnames() if re.fullmatch(r"package/LICENSE(\.\w+)?", n))
    return _read(tar, name.removeprefix("package/")).decode()


if __name__ == "__main__":
    if "--refresh" in sys.argv:
        refresh()
    for sentence in wrong():
        print(sentence)
    sys.exit(bool(wrong()))
