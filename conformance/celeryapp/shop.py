"""A small Celery application whose tasks count themselves, so that what the brain says can be compared with the truth.

Run with: celery -A shop worker -E -Q celery,mail,süß
The line `import z4j_celery` is all that connects it to a brain; where and as whom stands in Z4J_* variables.
"""

import os
import time

import redis
import z4j_celery  # noqa: F401  (starts the agent inside a worker)
from celery import Celery

REDIS = os.environ["SHOP_REDIS"]

app = Celery("shop", broker=REDIS, backend=REDIS)
app.conf.update(
    worker_prefetch_multiplier=4,
    task_acks_late=False,
    task_default_queue="celery",
    result_expires=3600,
    broker_connection_retry_on_startup=True,
)

truth = redis.Redis.from_url(REDIS)


def count(task, what):
    """Writes down that one execution of a task came to an end, and how."""
    truth.hincrby("truth:" + what, task.request.id, 1)


@app.task(bind=True)
def add(self, a, b):
    count(self, "succeeded")
    return a + b


@app.task(bind=True)
def fail(self, text):
    count(self, "failed")
    raise ValueError(text)


# A retry comes after more than a second: Celery's own events of a start and of the end before it may change places by less.


@app.task(bind=True, max_retries=10)
def flaky(self, failures):
    """Fails so often, then succeeds."""
    if self.request.retries < failures:
        count(self, "retried")
        raise self.retry(countdown=1.5, exc=RuntimeError("not yet"))
    count(self, "succeeded")
    return self.request.retries


@app.task(bind=True, max_retries=2)
def hopeless(self):
    """Is retried twice, then fails for good."""
    if self.request.retries < self.max_retries:
        count(self, "retried")
    else:
        count(self, "failed")
    raise self.retry(countdown=1.5, exc=RuntimeError("never"))


@app.task(bind=True)
def nap(self, seconds):
    """Sits there long enough to be revoked."""
    truth.hincrby("truth:started", self.request.id, 1)
    time.sleep(seconds)
    count(self, "succeeded")


@app.task(bind=True)
def say(self, *args, **kwargs):
    """Takes anything."""
    count(self, "succeeded")
    return len(args) + len(kwargs)
