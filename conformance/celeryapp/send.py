"""Sends tasks as a web application would. Reads a JSON list of orders, prints a JSON list of task ids in the same order.

An order is {"task", "args", "kwargs", "queue", "countdown", "n"}, or {"revoke": id, "terminate": bool}.
"""

import json
import sys

from shop import app

ids = []
for order in json.load(sys.stdin):
    if "revoke" in order:
        app.control.revoke(order["revoke"], terminate=order.get("terminate", False))
        ids.append(order["revoke"])
        continue
    for _ in range(order.get("n", 1)):
        result = app.send_task(
            "shop." + order["task"],
            args=order.get("args", []),
            kwargs=order.get("kwargs", {}),
            queue=order.get("queue", "celery"),
            countdown=order.get("countdown"),
        )
        ids.append(result.id)
json.dump(ids, sys.stdout)
