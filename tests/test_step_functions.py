"""The state machine and the template of deploy/step-functions, looked at by two validators, which must also see what is broken."""

import copy
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "step-functions"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "caudal-test"


def version_of(name):
    """The version after which tests/install-python calls a folder."""
    lines = (ROOT / "tests" / "requirements" / f"{name}.txt").read_text().splitlines()
    first = next(line for line in lines if line.strip() and not line.startswith("#"))
    return first.split("==")[1]


# cfn-lint comes with moto, and is pinned there.
CFN_LINT = CACHE / f"moto-{version_of('moto')}" / "bin" / "cfn-lint"
ASL_VERSION = json.loads((ROOT / "tests/asl-validator/package.json").read_text())["dependencies"]["asl-validator"]
ASL_VALIDATOR = CACHE / f"asl-validator-{ASL_VERSION}" / "node_modules" / ".bin" / "asl-validator"


def validate(machine):
    with tempfile.NamedTemporaryFile("w", suffix=".asl.json") as file:
        json.dump(machine, file)
        file.flush()
        return run(ASL_VALIDATOR, "--json-path", file.name)


def lint(template):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(template)
        file.flush()
        return run(CFN_LINT, "--region", "eu-west-1", "--", file.name)


def run(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


class StateMachine(unittest.TestCase):
    def setUp(self):
        self.machine = json.loads((FOLDER / "confirm.asl.json").read_text())
        self.template = (FOLDER / "template.yaml").read_text()

    def test_both_are_valid(self):
        for code, said in (validate(self.machine), lint(self.template)):
            self.assertEqual(code, 0, said)

    def test_each_validator_refuses_a_way_to_a_state_that_is_not_there(self):
        broken = copy.deepcopy(self.machine)
        broken["States"]["Wait"]["Next"] = "Nowhere"
        code, said = validate(broken)
        self.assertNotEqual(code, 0)
        self.assertIn("Nowhere", said)
        # cfn-lint looks where a machine begins, and no further.
        self.assertEqual(self.template.count('StartAt: "Confirm"'), 1)
        code, said = lint(self.template.replace('StartAt: "Confirm"', 'StartAt: "Nowhere"'))
        self.assertNotEqual(code, 0)
        self.assertIn("Nowhere", said)

    def test_each_validator_refuses_what_is_missing(self):
        broken = copy.deepcopy(self.machine)
        del broken["States"]["Reconcile"]["Resource"]
        self.assertNotEqual(validate(broken)[0], 0)
        template = self.template.replace("MachineRole, Arn", "NoSuchRole, Arn")
        self.assertIn("NoSuchRole", lint(template)[1])

    def test_the_template_has_the_machine_word_for_word(self):
        script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"
        python = CFN_LINT.with_name("python")
        read = subprocess.run([python, "-c", script], input=self.template, capture_output=True, text=True, check=True)
        resources = json.loads(read.stdout)["Resources"]
        self.assertEqual(resources["Machine"]["Properties"]["Definition"], self.machine)

    def test_what_can_fail_for_a_while_is_tried_again_and_has_an_end(self):
        def tasks(states):
            for state in states.values():
                yield from tasks(state.get("ItemProcessor", {}).get("States", {}))
                if state["Type"] == "Task":
                    yield state

        found = list(tasks(self.machine["States"]))
        self.assertEqual(len(found), 3)
        for task in found:
            self.assertIn("TimeoutSeconds", task)
            retry = task["Retry"][0]
            self.assertEqual(retry["JitterStrategy"], "FULL")
            self.assertLessEqual({"Lambda.TooManyRequestsException", "StoreUnavailable"}, set(retry["ErrorEquals"]))


if __name__ == "__main__":
    unittest.main()
