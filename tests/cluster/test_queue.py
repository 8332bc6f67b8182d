"""A pool's limit: what is above it waits."""

from tests.cluster.cluster import DONE, SMALL, Installation, Json, node, phase

LONG = f"schedule.steps=400 checkpoints.interval=50 evaluation.interval=400 training.log_interval=5 {SMALL}"


def test_with_a_limit_of_one_the_second_run_waits(bare: Installation, sample_exports: Installation):
    assert bare is sample_exports
    bare.values["nodePools"][0]["limit"] = 1
    bare.install()
    names = [bare.submit(overrides=LONG, seed=seed) for seed in ("42", "43")]

    def both_have_come_to_train(_: Json) -> bool:
        return all(node(bare.workflow(name), "train") for name in names)

    bare.wait(names[0], both_have_come_to_train, 180, "at the step train, nor the other")
    holding = [name for name in names if bare.pods(name, "train")]
    assert len(holding) == 1, "both train at once, or none"
    other = next(name for name in names if name not in holding)
    bare.training_pod(holding[0])
    assert bare.pods(other, "train") == []
    waiting = bare.workflow(other)
    assert phase(waiting) not in DONE
    assert "Waiting for" in node(waiting, "train")["message"]
    bare.kubectl("delete", "workflow", holding[0])
    bare.wait(other, lambda wf: bare.pods(other, "train") or phase(wf) in DONE, 120, "training in its turn")
    assert phase(bare.workflow(other)) not in DONE
    bare.kubectl("delete", "workflow", other)
