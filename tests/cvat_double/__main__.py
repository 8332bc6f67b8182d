"""`python -m tests.cvat_double`: the double as a process of its own, with a project and two tasks to begin with."""

import argparse
import json
import signal
import sys
import threading

from tests.cvat_double.server import CvatDouble


def main() -> None:
    """Print one line of JSON when it listens, then serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.cvat_double", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a pod")
    parser.add_argument("--port", type=int, default=8080, help="0: a free one")
    parser.add_argument("--s3-endpoint", default="", help="the bucket's server; empty: Amazon's")
    parser.add_argument("--bucket", default="", help="the cloud storage that exports can go to; empty: none")
    parser.add_argument("--access-key", default="tester")
    parser.add_argument("--secret-key", default="secret")
    parser.add_argument("--token", default="", help="token of the service account; empty: a random one")
    parser.add_argument("--images", type=int, default=24, help="of each task")
    parser.add_argument("--nuclio", default="", help="address of the dashboard for automatic annotation")
    options = parser.parse_args()

    double = CvatDouble(host=options.host, port=options.port)
    if options.token:
        double.service.token = options.token
    double.world.nuclio = options.nuclio
    storage = None
    if options.bucket:
        keys = {"access_key": options.access_key, "secret_key": options.secret_key}
        storage = double.add_cloud_storage(options.bucket, endpoint=options.s3_endpoint, **keys)
    project = double.add_project("Machine parts")
    labelled = double.add_drawn_task("Parts, labelled", images=options.images, project=project, images_per_job=8)
    empty = double.add_drawn_task(
        "Parts, to be labelled", images=options.images, project=project, seed=1, with_boxes=False
    )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    double.start()
    ready = {
        "url": double.url,
        "token": double.service.token,
        "cookies": double.ann.cookies(),
        "stranger": double.bob.cookies(),
        "project": project.id,
        "tasks": [labelled.id, empty.id],
        "cloud_storage": storage.id if storage else None,
    }
    print(json.dumps(ready), flush=True)
    ended.wait()
    double.close()
    sys.exit(0)


if __name__ == "__main__":
    main()
