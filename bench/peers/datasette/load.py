"""Loads flights from NDJSON into a typed SQLite table: load.py FILE DATABASE"""

import json
import os
import sqlite3
import sys

source, target = sys.argv[1:]
database = sqlite3.connect(target + ".new")
with open(source) as lines:
    first = json.loads(next(lines))
    columns = list(first)
    types = {name: "integer" if isinstance(value, int) else "text" for name, value in first.items()}
    database.execute(f"create table flights (id integer primary key, {', '.join(f'{name} {types[name]}' for name in columns)})")
    insert = f"insert into flights ({', '.join(columns)}) values ({', '.join('?' for _ in columns)})"
    lines.seek(0)
    database.executemany(insert, ([record[name] for name in columns] for record in map(json.loads, lines)))
database.commit()
database.execute("vacuum")
database.close()
os.rename(target + ".new", target)
