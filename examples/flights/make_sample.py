#!/usr/bin/env python3
"""Writes flights.sample.ndjson: 3,000 of the 336,776 flights, evenly spaced through the year, always the same ones.

    ./make_sample.py            download the package with pip (kept in the cache directory)
    ./make_sample.py PATH       use its archive, its unpacked directory, or flights.csv.zip
"""

import sys
from pathlib import Path

import nycflights

SAMPLE_ROWS = 3_000


def main(arguments: list) -> int:
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        source = Path(arguments[0]) if arguments else nycflights.fetch()
        flights = list(nycflights.rows(source))
    except (nycflights.Problem, OSError) as error:
        print(f"make_sample: {error}", file=sys.stderr)
        return 1
    # Row floor(i × rows ÷ 3,000): about every 112th, from the first row of January to the last days of the file.
    sample = [flights[i * len(flights) // SAMPLE_ROWS] for i in range(SAMPLE_ROWS)]
    target = Path(__file__).with_name("flights.sample.ndjson")
    target.write_text("".join(nycflights.to_line(flight) + "\n" for flight in sample), encoding="utf-8")
    print(f"{target}: {len(sample)} flights")
    print(f"sum of distance: {sum(flight['distance'] for flight in sample)}")
    print(f"sha256 of the canonical form: {nycflights.checksum([nycflights.canonical(f) for f in sample])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
