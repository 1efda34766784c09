"""AWS's own clients publish into Caudal: the `aws` command and boto3 programs, in which nothing names Caudal. Only the environment
says where the endpoint is (AWS_ENDPOINT_URL). Runs the program that `cargo test` has built. python3 -m unittest discover -s tests
"""

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import time
import unittest
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caudal-test"
REQUIREMENTS = HERE / "requirements/aws-clients.txt"
KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CONFIG = """
[topics.payments]
[topics.orders]
schema = "orders.schema.json"
"""
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}, "city": {"type": "string"}}}


def venv() -> Path:
    """The pinned environment; made when it is not there."""
    subprocess.run([HERE / "install-python", "aws-clients"], check=True)
    version = next(line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")).split("==")[1]
    return CACHE / f"aws-clients-{version}"


def binary() -> Path:
    """Caudal as `cargo test` left it."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    described = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True).stdout
    built = Path(json.loads(described)["target_directory"]) / "debug/caudal"
    if not built.exists():
        subprocess.run(["cargo", "build", "--quiet", "-p", "caudal"], cwd=HERE.parent, check=True)
    return built


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Caudal:
    """A server of its own, on SQLite."""

    def __init__(self, program: Path, **settings: str):
        self.home = Path(tempfile.mkdtemp(prefix="caudal-test"))
        (self.home / "caudal.toml").write_text(CONFIG)
        (self.home / "orders.schema.json").write_text(json.dumps(SCHEMA))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.key = settings.pop("key", "")
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CAUDAL_", "AWS_", "DATABASE_URL"))}
        own |= {"CAUDAL_HTTP__LISTEN": self.url.removeprefix("http://"), "CAUDAL_DATA_DIR": str(self.home / "data")} | settings
        self.log = open(self.home / "log", "wb")
        self.process = subprocess.Popen(
            [program, "serve"], cwd=self.home, env=own, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url + "/readyz", timeout=5)
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise AssertionError("Caudal did not start:\n" + self.last_log)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()
        self.last_log = (self.home / "log").read_text(errors="replace")
        shutil.rmtree(self.home)

    def rows(self, topic: str, count: int) -> list:
        """The rows of a topic, once there are that many: a worker stores what is queued."""
        deadline = time.monotonic() + 30
        while True:
            request = urllib.request.Request(f"{self.url}/rest/v1/{topic}?order=_stored_at,_id")
            if self.key:
                request.add_header("Authorization", f"Bearer {self.key}")
            rows = json.load(urllib.request.urlopen(request, timeout=10))
            if len(rows) >= count or time.monotonic() > deadline:
                return rows
            time.sleep(0.02)


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bin = venv() / "bin"
        cls.program = binary()

    def caudal(self, **settings) -> Caudal:
        server = Caudal(self.program, **settings)
        self.addCleanup(server.stop)
        return server

    def environment(self, server: Caudal, key_id=KEY_ID, secret=SECRET) -> dict:
        home = str(server.home)
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "AWS_ENDPOINT_URL": server.url,
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def aws(self, server: Caudal, *arguments: str, **credentials):
        command = [self.bin / "aws", "--output", "json", *arguments]
        if "sqs" in arguments:
            # The `aws` command forgets AWS_ENDPOINT_URL for SQS alone (aws/aws-cli#8737).
            command += ["--endpoint-url", server.url]
        environment = self.environment(server, **credentials)
        return subprocess.run(command, env=environment, cwd=server.home, capture_output=True, text=True, timeout=60)

    def said(self, server: Caudal, *arguments: str) -> dict:
        done = self.aws(server, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def boto(self, server: Caudal, script: str, **credentials) -> dict:
        """Runs a program with boto3; what it prints is its answer."""
        command = [self.bin / "python", "-c", "import boto3, json\n" + textwrap.dedent(script)]
        environment = self.environment(server, **credentials)
        done = subprocess.run(command, env=environment, cwd=server.home, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_the_aws_command_publishes_by_sns(self):
        server = self.caudal()
        arn = "arn:aws:sns:eu-west-1:123456789012:orders"
        attributes = {"kind": {"DataType": "String", "StringValue": "café"}, "raw": {"DataType": "Binary", "BinaryValue": "bytes"}}
        one = self.said(
            server, "sns", "publish", "--topic-arn", arn, "--message", '{"n": 1, "city": "Bogotá & <Cali>"}',
            "--subject", "Hello", "--message-attributes", json.dumps(attributes),
        )
        entries = [{"Id": f"e{n}", "Message": json.dumps({"n": n})} for n in range(2, 11)] + [{"Id": "bad", "Message": "oops"}]
        batch = self.said(server, "sns", "publish-batch", "--topic-arn", arn, "--publish-batch-request-entries", json.dumps(entries))
        self.assertEqual([entry["Id"] for entry in batch["Successful"]], [f"e{n}" for n in range(2, 11)])
        self.assertEqual([(bad["Id"], bad["Code"], bad["SenderFault"]) for bad in batch["Failed"]], [("bad", "InvalidParameter", True)])
        rows = {row["_id"]: row for row in server.rows("orders", 10)}
        self.assertEqual(len(rows), 10)
        row = rows[one["MessageId"]]
        self.assertEqual((row["n"], row["city"], row["_source"]), (1, "Bogotá & <Cali>", "aws:sns"))
        self.assertEqual(row["_extra"]["$attributes"], {"Subject": "Hello", "kind": "café", "raw": "Ynl0ZXM="})
        self.assertEqual({rows[entry["MessageId"]]["n"] for entry in batch["Successful"]}, set(range(2, 11)))
        made = self.said(server, "sns", "create-topic", "--name", "orders")
        self.assertEqual(made["TopicArn"], "arn:aws:sns:eu-west-1:000000000000:orders")
        self.assertIn(made, self.said(server, "sns", "list-topics")["Topics"])

    def test_the_aws_command_publishes_by_sqs(self):
        server = self.caudal()
        url = self.said(server, "sqs", "get-queue-url", "--queue-name", "payments")["QueueUrl"]
        self.assertEqual(url, server.url + "/000000000000/payments")
        text = json.dumps({"id": 7, "text": "line\nbreak «ñ» 🚀"}, ensure_ascii=False)
        attributes = {"kind": {"DataType": "String", "StringValue": "x"}, "count": {"DataType": "Number", "StringValue": "3"}}
        one = self.said(
            server, "sqs", "send-message", "--queue-url", url, "--message-body", text, "--message-attributes", json.dumps(attributes)
        )
        self.assertEqual(one["MD5OfMessageBody"], hashlib.md5(text.encode()).hexdigest())
        packed = b"".join(
            part
            for name, kind, value in [("count", "Number", "3"), ("kind", "String", "x")]
            for part in [
                len(name).to_bytes(4, "big"), name.encode(), len(kind).to_bytes(4, "big"), kind.encode(), b"\x01",
                len(value).to_bytes(4, "big"), value.encode(),
            ]
        )
        self.assertEqual(one["MD5OfMessageAttributes"], hashlib.md5(packed).hexdigest())
        entries = [{"Id": f"e{n}", "MessageBody": str(n)} for n in range(10)]
        batch = self.said(server, "sqs", "send-message-batch", "--queue-url", url, "--entries", json.dumps(entries))
        self.assertEqual((len(batch["Successful"]), batch.get("Failed", [])), (10, []))
        rows = {row["_id"]: row for row in server.rows("payments", 11)}
        self.assertEqual(rows[one["MessageId"]]["payload"], json.loads(text))
        self.assertEqual({rows[entry["MessageId"]]["payload"] for entry in batch["Successful"]}, set(range(10)))
        missing = self.aws(server, "sqs", "get-queue-url", "--queue-name", "nobody")
        self.assertIn("AWS.SimpleQueueService.NonExistentQueue", missing.stderr)
        other = self.aws(server, "sqs", "receive-message", "--queue-url", url)
        self.assertIn("UnsupportedOperation", other.stderr)
        self.assertIn("SendMessageBatch", other.stderr, "it says what there is")

    def test_boto3_programs_publish(self):
        server = self.caudal()
        said = self.boto(server, """
            sns, sqs = boto3.client("sns"), boto3.client("sqs")
            arn = sns.create_topic(Name="orders")["TopicArn"]
            ids = [sns.publish(TopicArn=arn, Message=json.dumps({"n": 1}))["MessageId"]]
            entries = [{"Id": str(n), "Message": json.dumps({"n": n}),
                        "MessageAttributes": {"a": {"DataType": "String", "StringValue": "b"}}} for n in range(2, 5)]
            ids += [sent["MessageId"] for sent in sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=entries)["Successful"]]
            topic = boto3.resource("sns").Topic(arn)
            ids.append(topic.publish(Message=json.dumps({"n": 5}))["MessageId"])

            url = sqs.get_queue_url(QueueName="orders")["QueueUrl"]
            ids.append(sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"n": 6}))["MessageId"])
            queue = boto3.resource("sqs").get_queue_by_name(QueueName="orders")
            ids.append(queue.send_message(MessageBody=json.dumps({"n": 7}))["MessageId"])
            sent = queue.send_messages(Entries=[{"Id": "a", "MessageBody": json.dumps({"n": 8})}, {"Id": "b", "MessageBody": "{"}])
            ids.append(sent["Successful"][0]["MessageId"])

            fifo = sqs.create_queue(QueueName="orders.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
            ordered = [sqs.send_message(QueueUrl=fifo, MessageBody=json.dumps({"n": 9}), MessageGroupId="g",
                                        MessageDeduplicationId="once") for _ in range(3)]
            ids.append(ordered[0]["MessageId"])
            depth = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            caught = []
            for attempt in [
                lambda: sqs.get_queue_url(QueueName="nobody"),
                lambda: sns.publish(TopicArn=arn + "x", Message="1"),
                lambda: sns.publish(TopicArn=arn, Message="not JSON"),
                lambda: sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"n": "one"})),
                lambda: sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=[{"Id": str(n), "Message": "1"} for n in range(11)]),
                lambda: sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "1"}] * 2),
                lambda: sqs.send_message(QueueUrl=url, MessageBody="1" * 262145),
                lambda: sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint="x"),
            ]:
                try:
                    attempt()
                    caught.append(None)
                except Exception as error:
                    caught.append([type(error).__name__, error.response["Error"]["Code"]])
            print(json.dumps({"ids": ids, "failed": sent["Failed"], "ordered": ordered, "depth": depth, "caught": caught}))
        """)
        rows = {row["_id"]: row for row in server.rows("orders", 9)}
        self.assertEqual([rows[one]["n"] for one in said["ids"]], list(range(1, 10)))
        self.assertEqual(len(rows), 9)
        self.assertEqual([(bad["Id"], bad["Code"]) for bad in said["failed"]], [("b", "InvalidMessageContents")])
        self.assertEqual(len({sent["MessageId"] for sent in said["ordered"]}), 1, "one message by its deduplication id")
        self.assertTrue(all(len(sent["SequenceNumber"]) == 20 for sent in said["ordered"]))
        self.assertGreaterEqual(int(said["depth"]["ApproximateNumberOfMessages"]), 0)
        self.assertEqual(said["caught"], [
            ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"],
            ["NotFoundException", "NotFound"],
            ["InvalidParameterException", "InvalidParameter"],
            ["ClientError", "InvalidParameterValue"],
            ["TooManyEntriesInBatchRequestException", "TooManyEntriesInBatchRequest"],
            ["BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"],
            ["ClientError", "InvalidParameterValue"],
            ["ClientError", "InvalidAction"],
        ])

    def test_with_keys_only_the_right_signature_publishes(self):
        key = secrets.token_urlsafe(32)
        hashed = "sha256:" + hashlib.sha256(key.encode()).hexdigest()
        server = self.caudal(
            key=key, CAUDAL_HTTP__KEYS=json.dumps([hashed]), **{f"CAUDAL_HTTP__AWS_KEYS__{KEY_ID}": SECRET}
        )
        publish = ["sns", "publish", "--topic-arn", "arn:aws:sns:eu-west-1:123456789012:payments", "--message", '{"ñ": "a+b %20&=~"}']
        send = ["sqs", "send-message", "--queue-url", server.url + "/000000000000/payments", "--message-body", '{"ñ": 2}']
        for command in (publish, send):
            done = self.aws(server, *command)
            self.assertEqual(done.returncode, 0, done.stderr)
            for credentials, code in [
                ({"secret": SECRET[:-1] + "x"}, "SignatureDoesNotMatch"),
                ({"key_id": "AKIDSOMEBODY"}, "InvalidClientTokenId"),
            ]:
                self.assertIn(f"({code})", self.aws(server, *command, **credentials).stderr)
            self.assertIn("MissingAuthenticationToken", self.aws(server, "--no-sign-request", *command).stderr)
        late = self.boto(server, """
            import datetime, botocore.auth
            own = botocore.auth.get_current_datetime
            botocore.auth.get_current_datetime = lambda *a, **k: own(*a, **k) - datetime.timedelta(minutes=16)
            caught = []
            for attempt in [lambda: boto3.client("sns").list_topics(), lambda: boto3.client("sqs").list_queues()]:
                try:
                    attempt()
                except Exception as error:
                    caught.append(error.response["Error"]["Code"])
            print(json.dumps(caught))
        """)
        self.assertEqual(late, ["RequestExpired", "RequestExpired"])
        rows = server.rows("payments", 2)
        self.assertEqual([row["payload"] for row in rows], [{"ñ": "a+b %20&=~"}, {"ñ": 2}])

    def test_what_an_sdk_repeats_by_itself_is_stored_once(self):
        """The first answer is lost on the way: boto3 sends the call again and Caudal knows it."""
        server = self.caudal()
        said = self.boto(server, """
            import os
            from botocore.httpsession import URLLib3Session
            from botocore.exceptions import ReadTimeoutError
            os.environ["AWS_MAX_ATTEMPTS"] = "3"
            send, lost = URLLib3Session.send, []
            def lossy(self, request):
                answer = send(self, request)
                if len(lost) < 2:
                    lost.append(answer.status_code)
                    raise ReadTimeoutError(endpoint_url=request.url)
                return answer
            URLLib3Session.send = lossy
            sent = boto3.client("sns").publish(TopicArn="arn:aws:sns:eu-west-1:123456789012:payments", Message='{"n": 1}')
            print(json.dumps([sent["MessageId"], sent["ResponseMetadata"]["RetryAttempts"], lost]))
        """)
        self.assertEqual(said[1:], [2, [200, 200]])
        self.assertEqual([row["_id"] for row in server.rows("payments", 1)], [said[0]])


if __name__ == "__main__":
    unittest.main()
