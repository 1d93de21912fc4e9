"""A registered version, trained again from its commit, parameters and data."""

from .conftest import Repository


def test_a_version_is_made_again_from_its_commit_to_the_bit(used: Repository) -> None:
    # what lies about now is not what it was made from
    (used.folder / "pipeline/training/fit.py").write_text("raise SystemExit('not the commit')\n")
    used.set(train__epochs=1)
    output = used.ok("python -m pipeline reproduce champion")
    assert "version 1 is reproduced: weights and metrics are equal to the bit" in output
    assert "train: 3 epochs" in output
    assert used.ok("git worktree list").count("\n") == 1
    assert "worktree" not in used.ok("git branch")


def test_a_version_of_uncommitted_code_is_not_reproduced_but_told(used: Repository) -> None:
    with (used.folder / "pipeline/training/fit.py").open("a") as file:
        file.write("# a change\n")
    used.set(tune__trials=0, train__seed=2)
    used.ok("dvc repro")
    done = used.run("python -m pipeline reproduce 2")
    assert done.returncode == 1
    assert "cannot be restored: pipeline/training/fit.py differed from commit" in done.stdout
    assert "params.yaml" not in done.stdout
