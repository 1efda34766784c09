"""The example data is what its READMEs say. Standard library only: python3 -m unittest discover -s tests"""

import datetime
import importlib.util
import json
import sys
import tomllib
import unittest
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
JSON_TYPES = {"integer": int, "string": str, "null": type(None)}


def lines_of(name: str) -> list:
    return (EXAMPLES / name).read_text(encoding="utf-8").splitlines()


def module(path: Path, name: str):
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def faults(schema: dict, record: dict) -> list:
    """Breaches of the few keywords that the example schemas use."""
    found = [f"{name} is missing" for name in schema["required"] if name not in record]
    found += [f"{name} is unknown" for name in record if name not in schema["properties"]]
    for name, rule in schema["properties"].items():
        value = record.get(name)
        types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        if not isinstance(value, tuple(JSON_TYPES[t] for t in types)) or isinstance(value, bool):
            found.append(f"{name} is {value!r}")
        elif value is not None:
            size = len(value) if isinstance(value, str) else value
            low = rule.get("minLength", rule.get("minimum", size))
            high = rule.get("maxLength", rule.get("maximum", size))
            if not low <= size <= high or value not in rule.get("enum", [value]):
                found.append(f"{name} is out of bounds: {value!r}")
            if rule.get("format") == "date-time" and datetime.datetime.fromisoformat(value).tzinfo is None:
                found.append(f"{name} has no zone")
    return found


class Example:
    topic = ""
    rows = 0

    def setUp(self):
        self.lines = lines_of(f"{self.topic}/{self.topic}.sample.ndjson")
        self.records = [json.loads(line) for line in self.lines]
        self.config = tomllib.loads("\n".join(lines_of(f"{self.topic}/caudal.toml")))["topics"][self.topic]
        self.schema = json.loads("\n".join(lines_of(f"{self.topic}/{self.config['schema']}")))

    def test_every_row_obeys_the_schema(self):
        self.assertEqual(len(self.records), self.rows)
        for row, record in enumerate(self.records):
            self.assertEqual(faults(self.schema, record), [], f"row {row}")

    def test_the_configured_key_is_unique(self):
        keys = {tuple(record[name] for name in self.config["key"]) for record in self.records}
        self.assertEqual(len(keys), self.rows)


class Flights(Example, unittest.TestCase):
    topic = "flights"
    rows = 3_000

    def test_the_readme_has_the_sample_s_numbers(self):
        source = module(EXAMPLES / "flights/nycflights.py", "nycflights")
        checksum = source.checksum([source.canonical(record) for record in self.records])
        distance = sum(record["distance"] for record in self.records)
        readme = (EXAMPLES / "flights/README.md").read_text(encoding="utf-8")
        self.assertIn(f"| sample | {self.rows:,} | {distance:,} | `{checksum}` |", readme)
        self.assertIn(f"| all | {source.ROWS:,} | {source.DISTANCE_SUM:,} | `{source.CHECKSUM}` |", readme)

    def test_the_schema_has_the_source_s_columns_in_order(self):
        source = module(EXAMPLES / "flights/nycflights.py", "nycflights")
        self.assertEqual(list(self.schema["properties"]), source.COLUMNS)


class Payments(Example, unittest.TestCase):
    topic = "payments"
    rows = 200

    def test_the_generator_writes_the_same_file_again(self):
        generator = module(EXAMPLES / "payments/make_sample.py", "make_payments")
        self.assertEqual([generator.payment(row) for row in range(self.rows)], self.records)


if __name__ == "__main__":
    unittest.main()
