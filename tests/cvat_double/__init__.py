"""A small, honest double of a CVAT server: the routes, fields, permissions and error forms that we rely on.

In a test, take the fixture (`from tests.cvat_double.fixtures import cvat` in the folder's conftest.py; with a
bucket behind it also `cvat_bucket`, and the fixtures of tests/object_store/conftest.py):

    def test_something(cvat: CvatDouble):
        project = cvat.add_project("Parts", labels=["bolt", "nut"], owner=cvat.ann)
        task = cvat.add_drawn_task("Parts 1", images=4, project=project)   # real pictures with boxes
        task = cvat.add_drawn_task("Parts 2", images=4, owner=cvat.ann)    # without a project
        cvat.url                              # http://127.0.0.1:<port>
        cvat.service.token                    # Authorization: Bearer …: the service account, which sees everything
        cvat.ann.cookies()                    # {"sessionid": …, "csrftoken": …}: whoever owns the tasks
        cvat.bob                              # a stranger: 403 everywhere
        cvat.faults.export_fails = "reason"   # what else can go wrong: faults.py
        cvat.away_for(3)                      # the socket is closed for 3 s; away_for(3, how="502") answers instead
        cvat.revoke(cvat.service)             # its token is accepted no more
        cvat.annotate(task, "http://…:8070", "function", threshold=0.5)  # as CVAT's lambda_manager calls Nuclio
        cvat.seen                             # every request so far: method, path, query, headers

By hand, as a pod, or beside a browser: `python -m tests.cvat_double --port 8080 --s3-endpoint http://… --bucket b`.
What a program in another process needs of the above is below `/_double/` (control.py). It is no CVAT: tracks are
kept but not exported, masks make an export fail, and whatever is not listed here answers 404.
"""

from tests.cvat_double.server import CvatDouble

__all__ = ["CvatDouble"]
