#!/usr/bin/env python3
"""A function that confirms, for tests: it speaks Lambda's runtime API by itself and keeps books of what it did.

What it does is in the record: {"do": "confirm" | "decline" | "wait" | "raise" | "raise_after" | "sleep" | "mumble"}. An effect is a line in the
file BOOKS; a key that is in the books already is confirmed without another effect."""

import http.client
import json
import os
import time

# Lambda gives a host and a port; cargo-lambda a URL with a path.
API = os.environ["AWS_LAMBDA_RUNTIME_API"].removeprefix("http://")
BOOKS = os.environ["BOOKS"]


def known(key):
    if not os.path.exists(BOOKS):
        return False
    with open(BOOKS) as books:
        return any(line.strip() == key for line in books)


def effect(key):
    if not known(key):
        with open(BOOKS, "a") as books:
            books.write(key + "\n")


def confirm(event):
    key, do = event["key"], event["record"].get("do", "confirm")
    if event.get("probe"):
        return {"status": "confirmed" if known(key) else "not_found", "detail": "by the books"}
    if do == "decline":
        return {"status": "rejected", "detail": "no funds"}
    if do == "wait":
        return {"status": "retry", "retry_after_seconds": 7}
    if do == "raise":
        raise ValueError("nothing was done")
    if do == "mumble":
        return {"state": "ok"}
    effect(key)
    if do == "raise_after":
        raise ValueError("it was done")
    if do == "sleep":
        time.sleep(3)
    return {"status": "confirmed", "detail": json.dumps(event["record"])}


def request(method, path, body=None):
    host, _, base = API.partition("/")
    connection = http.client.HTTPConnection(host)
    connection.request(method, ("/" + base if base else "") + "/2018-06-01/runtime" + path, body)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response, text


while True:
    invocation, text = request("GET", "/invocation/next")
    number = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
    try:
        request("POST", f"/invocation/{number}/response", json.dumps(confirm(json.loads(text))))
    except ValueError as error:
        said = {"errorType": "ValueError", "errorMessage": str(error)}
        request("POST", f"/invocation/{number}/error", json.dumps(said))
