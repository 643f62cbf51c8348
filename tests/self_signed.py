"""A certificate for a server on this machine, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def certificate(folder: Path, name: str = "server") -> tuple[Path, Path]:
    """Certificate and key of localhost and 127.0.0.1, as PEM files of this name in the folder."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", str(cert), "-keyout", str(key)]
    subprocess.run([*request, *names], check=True, capture_output=True)
    return cert, key
