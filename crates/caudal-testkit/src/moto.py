"""moto with its queues and tables made safe for several requests at once, and FIFO groups that keep their order.

moto answers each request in a thread of its own and takes no care: two polls can be given the same message, a delete forgets what
is sent meanwhile, and a long poll judges a FIFO group by what was out when it began. Here every call has the queues to itself, and
a long poll waits outside, asking anew. And when the time of several messages of a group is over at once, moto hands out the last of
them first, because it frees them one by one as it passes them and looks at the clock for each; here all whose time is over at one
moment are freed before, and the others are not.

A conditional write to a table looks first and writes then, with other requests in between; here it has the tables to itself.

The interpreter of state machines makes clients of boto3 and reads JSON paths in several threads, which neither bears: one at a time.

It also counts the whole queue six times for each message that it hands out, to learn how long the queue keeps messages.
"""

import logging
import threading
import time

import boto3
import jsonpath_ng.ext

logging.basicConfig(level=logging.ERROR)
interpreting = threading.Lock()


def one_thread_at_a_time(inner):
    def call(*args, **kwargs):
        with interpreting:
            return inner(*args, **kwargs)

    return call


# Before moto takes them.
boto3.client = one_thread_at_a_time(boto3.client)
jsonpath_ng.ext.parse = one_thread_at_a_time(jsonpath_ng.ext.parse)

from moto.core.utils import unix_time_millis
from moto.dynamodb.models import DynamoDBBackend
from moto.server import main
from moto.sns.models import SNSBackend
from moto.sqs.models import Message, SQSBackend

PAUSE_SECONDS = 0.02

alone = threading.RLock()


def one_at_a_time(inner):
    def call(*args, **kwargs):
        with alone:
            return inner(*args, **kwargs)

    return call


for backend in (DynamoDBBackend, SNSBackend, SQSBackend):
    for name, inner in list(vars(backend).items()):
        if callable(inner) and not name.startswith("_"):
            setattr(backend, name, one_at_a_time(inner))

def is_kept_so_long(self, queue_name, message):
    age_seconds = time.time() - message.sent_timestamp / 1000
    return age_seconds < self.get_queue(queue_name).message_retention_period


SQSBackend.is_message_valid_based_on_retention_period = is_kept_so_long
receive_one_by_one = SQSBackend.receive_message
moment = None


def is_visible(self):
    return (moment or unix_time_millis()) > self.visible_at


Message.visible = property(is_visible)


def receive_now(self, queue_name, *rest):
    global moment
    with alone:
        moment = unix_time_millis()
        try:
            queue = self.get_queue(queue_name)
            for message in [message for message in queue.pending_messages if message.visible]:
                queue.pending_messages.remove(message)
            return receive_one_by_one(self, queue_name, *rest)
        finally:
            moment = None


def receive_message(self, queue_name, count, wait_seconds_timeout, visibility_timeout, message_attribute_names=None):
    end = time.monotonic() + wait_seconds_timeout
    while True:
        found = receive_now(self, queue_name, count, 0, visibility_timeout, message_attribute_names)
        if found or time.monotonic() >= end:
            return found
        time.sleep(PAUSE_SECONDS)


SQSBackend.receive_message = receive_message
main()
