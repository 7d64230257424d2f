"""Prints what really ran, as JSON: {"succeeded": {id: times}, "failed": …, "retried": …, "started": …}."""

import json
import sys

from shop import truth

kinds = ("started", "succeeded", "failed", "retried")
json.dump({k: {i.decode(): int(n) for i, n in truth.hgetall("truth:" + k).items()} for k in kinds}, sys.stdout)
