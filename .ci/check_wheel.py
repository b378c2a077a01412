"""The wheel holds the package, its data and its licence, and nothing else; its version is the one in the package."""

import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import micropref

wheel = zipfile.ZipFile(sys.argv[1])
names = wheel.namelist()
expected = {str(path) for path in Path("micropref").rglob("*.py")} | {"micropref/py.typed"}
for kind in ("json", "html", "toml"):
    expected |= {str(path) for path in Path("micropref").rglob(f"*.{kind}")}
problems = [f"missing: {name}" for name in sorted(expected - set(names))]
problems += [f"unexpected: {name}" for name in names if not name.startswith("micropref-") and name not in expected]
if not any(name.endswith("LICENSE") for name in names):
    problems.append("missing: LICENSE")
metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
version = Parser().parsestr(wheel.read(metadata).decode())["Version"]
if version != micropref.__version__:
    problems.append(f"expected version {micropref.__version__}, as in micropref/__init__.py, got {version}")
print("\n".join(problems) or f"{Path(sys.argv[1]).name}: {len(names)} files, as expected")
sys.exit(bool(problems))
