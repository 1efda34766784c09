#!/usr/bin/env python3
"""Writes payments.sample.ndjson: 200 invented payments, always the same ones. Standard library only."""

import datetime
import hashlib
import json
import sys
from pathlib import Path

ROWS = 200
START = datetime.datetime(2026, 1, 5, 8, 0, tzinfo=datetime.timezone.utc)
# (code, smallest amount, largest amount) in hundredths. Pesos have no hundredths in use, so theirs end in 00.
CURRENCIES = [("CLP", 100_000, 50_000_000), ("USD", 100, 250_000), ("EUR", 100, 250_000)]
DESCRIPTIONS = ["Invoice {n}", "Arriendo {n}", "Salary", "Remboursement nº {n}", "Café ☕", "Refund of order {n}", None]


def number(row: int, what: str, below: int) -> int:
    """A number in 0..below, the same on every machine and every Python."""
    digest = hashlib.sha256(f"caudal payments {row} {what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def payment(row: int) -> dict:
    currency, smallest, largest = CURRENCIES[number(row, "currency", len(CURRENCIES))]
    amount = smallest + number(row, "amount", largest - smallest + 1)
    if currency == "CLP":
        amount -= amount % 100
    created = START + datetime.timedelta(minutes=13 * row, seconds=number(row, "second", 60))
    description = DESCRIPTIONS[number(row, "description", len(DESCRIPTIONS))]
    return {
        "payment_id": f"pay-{row + 1:06}",
        "account": f"ACC-{1000 + number(row, 'account', 40)}",
        "amount_cents": amount,
        "currency": currency,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": description and description.format(n=1000 + row),
    }


def main() -> int:
    lines = [json.dumps(payment(row), separators=(",", ":"), ensure_ascii=False) + "\n" for row in range(ROWS)]
    target = Path(__file__).with_name("payments.sample.ndjson")
    target.write_text("".join(lines), encoding="utf-8")
    print(f"{target}: {len(lines)} payments")
    return 0


if __name__ == "__main__":
    sys.exit(main())
