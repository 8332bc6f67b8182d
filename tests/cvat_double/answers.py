"""The JSON forms of CVAT's answers, checked in test_answers.py against the models of the cvat-sdk wheel."""

from datetime import datetime

from tests.cvat_double.world import CloudStorage, Job, Label, Project, Task, User, World

TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
EXPORTERS = (
    ("COCO 1.0", "1.0"),
    ("COCO Keypoints 1.0", "1.0"),
    ("CVAT for images 1.1", "1.1"),
    ("Datumaro 1.0", "1.0"),
    ("PASCAL VOC 1.1", "1.1"),
    ("Ultralytics YOLO Detection 1.0", "1.0"),
)


def time(moment: datetime) -> str:
    return moment.strftime(TIME)


def basic_user(user: User | None, base: str) -> dict | None:
    if user is None:
        return None
    return {
        "url": f"{base}/api/users/{user.id}",
        "id": user.id,
        "username": user.username,
        "first_name": user.first_name,
        "last_name": user.last_name,
    }


def user_self(user: User, base: str) -> dict:
    return {
        **(basic_user(user, base) or {}),
        "email": f"{user.username}@example.org",
        "groups": user.groups,
        "is_staff": user.is_admin,
        "is_superuser": user.is_admin,
        "is_active": True,
        "last_login": "2026-01-01T08:00:00.000000Z",
        "date_joined": "2026-01-01T08:00:00.000000Z",
        "has_analytics_access": user.is_admin,
    }


def access_token(user: User, base: str, *, read_only: bool) -> dict:
    return {
        "id": user.id,
        "name": "a token",
        "created_date": "2026-01-01T08:00:00.000000Z",
        "updated_date": "2026-01-01T08:00:00.000000Z",
        "expiry_date": None,
        "last_used_date": "2026-01-01T08:00:00.000000Z",
        "read_only": read_only,
        "owner": basic_user(user, base),
    }


def membership(user: User, organization: int, role: str, base: str) -> dict:
    return {
        "id": user.id,
        "user": basic_user(user, base),
        "organization": organization,
        "is_active": True,
        "joined_date": "2026-01-01T08:00:00.000000Z",
        "role": role,
        "invitation": None,
    }


def storage_setting(number: int, cloud_storage: int | None) -> dict:
    location = "local" if cloud_storage is None else "cloud_storage"
    return {"id": number, "location": location, "cloud_storage_id": cloud_storage}


def status(jobs: list[Job]) -> str:
    if all(job.stage == "acceptance" and job.state == "completed" for job in jobs):
        return "completed"
    return "annotation" if any(job.stage == "annotation" for job in jobs) else "validation"


def task(one: Task, base: str) -> dict:
    return {
        "url": f"{base}/api/tasks/{one.id}",
        "id": one.id,
        "name": one.name,
        "project_id": one.project.id if one.project else None,
        "project_name": one.project.name if one.project else None,
        "mode": one.mode,
        "media_type": "image" if one.mode == "annotation" else "video",
        "owner": basic_user(one.owner, base),
        "assignee": basic_user(one.assignee, base),
        "assignee_updated_date": None,
        "bug_tracker": one.bug_tracker,
        "created_date": time(one.created),
        "updated_date": time(one.updated),
        "overlap": 0,
        "segment_size": max((job.stop - job.start + 1 for job in one.jobs), default=0),
        "status": status(one.jobs),
        "data_chunk_size": one.chunk_size,
        "data_compressed_chunk_type": "imageset",
        "data_original_chunk_type": "imageset" if one.mode == "annotation" else "video",
        "data_cloud_storage_id": None,
        "guide_id": None,
        "size": len(one.frames),
        "image_quality": 70,
        "data": one.id,
        "dimension": "2d",
        "subset": one.subset,
        "organization": one.organization,
        "organization_id": one.organization,
        "target_storage": storage_setting(one.id, one.target_storage),
        "source_storage": storage_setting(one.id, None),
        "jobs": {
            "count": len(one.jobs),
            "completed": sum(job.stage == "acceptance" and job.state == "completed" for job in one.jobs),
            "validation": sum(job.stage == "validation" for job in one.jobs),
            "url": f"{base}/api/jobs?task_id={one.id}",
        },
        "labels": {"url": f"{base}/api/labels?task_id={one.id}"},
        "validation_mode": None,
    }


def project(one: Project, world: World, base: str) -> dict:
    tasks = [task for task in world.tasks.values() if task.project is one]
    return {
        "url": f"{base}/api/projects/{one.id}",
        "id": one.id,
        "name": one.name,
        "owner": basic_user(one.owner, base),
        "assignee": basic_user(one.assignee, base),
        "assignee_updated_date": None,
        "guide_id": None,
        "bug_tracker": one.bug_tracker,
        "task_subsets": sorted({task.subset for task in tasks if task.subset}),
        "created_date": time(one.created),
        "updated_date": time(one.updated),
        "status": "annotation",
        "dimension": "2d" if tasks else None,
        "organization": one.organization,
        "organization_id": one.organization,
        "target_storage": storage_setting(one.id, None),
        "source_storage": storage_setting(one.id, None),
        "tasks": {"count": len(tasks), "url": f"{base}/api/tasks?project_id={one.id}"},
        "labels": {"url": f"{base}/api/labels?project_id={one.id}"},
    }


def job(one: Job, of: Task, base: str) -> dict:
    return {
        "url": f"{base}/api/jobs/{one.id}",
        "id": one.id,
        "task_id": of.id,
        "task_name": of.name,
        "project_id": of.project.id if of.project else None,
        "project_name": of.project.name if of.project else None,
        "assignee": basic_user(one.assignee, base),
        "assignee_updated_date": None,
        "guide_id": None,
        "dimension": "2d",
        "bug_tracker": of.bug_tracker or None,
        "status": "completed" if one.stage == "acceptance" else one.stage,
        "stage": one.stage,
        "state": one.state,
        "mode": of.mode,
        "media_type": "image" if of.mode == "annotation" else "video",
        "frame_count": one.stop - one.start + 1,
        "start_frame": one.start,
        "stop_frame": one.stop,
        "data_chunk_size": of.chunk_size,
        "data_compressed_chunk_type": "imageset",
        "data_original_chunk_type": "imageset",
        "created_date": time(of.created),
        "updated_date": time(of.updated),
        "type": one.type,
        "organization": of.organization,
        "target_storage": storage_setting(of.id, of.target_storage),
        "source_storage": storage_setting(of.id, None),
        "issues": {"url": f"{base}/api/issues?job_id={one.id}", "count": 0},
        "labels": {"url": f"{base}/api/labels?job_id={one.id}"},
        "parent_job_id": None,
    }


def label(one: Label, task_id: int | None, project_id: int | None) -> dict:
    return {
        "id": one.id,
        "name": one.name,
        "color": one.color,
        "attributes": [],
        "type": one.type,
        "sublabels": [],
        "project_id": project_id,
        "task_id": task_id,
        "parent_id": None,
        "has_parent": False,
    }


def data_meta(one: Task) -> dict:
    return {
        "chunks_updated_date": time(one.created),
        "chunk_size": one.chunk_size,
        "size": len(one.frames),
        "image_quality": 70,
        "start_frame": 0,
        "stop_frame": len(one.frames) - 1,
        "frame_filter": "",
        "frames": [
            {
                "width": frame.width,
                "height": frame.height,
                "name": frame.name,
                "related_files": 0,
                "has_related_context": False,
            }
            for frame in one.frames
        ],
        "deleted_frames": sorted(one.deleted_frames),
        "included_frames": None,
        "storage": "local",
        "cloud_storage_id": None,
    }


def cloud_storage(one: CloudStorage, base: str) -> dict:
    return {
        "id": one.id,
        "owner": basic_user(one.owner, base),
        "manifests": [],
        "provider_type": "AWS_S3_BUCKET",
        "resource": one.bucket,
        "display_name": one.bucket,
        "created_date": time(one.created),
        "updated_date": time(one.created),
        "credentials_type": "KEY_SECRET_KEY_PAIR",
        "specific_attributes": f"endpoint_url={one.endpoint}&region={one.region}",
        "description": "",
        "organization": None,
    }


def formats() -> dict:
    exporters = [
        {"name": name, "ext": "ZIP", "version": version, "enabled": True, "dimension": "2d"}
        for name, version in EXPORTERS
    ]
    return {"importers": exporters[:1], "exporters": exporters}


def about(version: tuple[int, int]) -> dict:
    return {
        "name": "Computer Vision Annotation Tool",
        "description": "A double for tests.",
        "version": "{}.{}.0".format(*version),
        "logo_url": "",
        "subtitle": "",
    }
