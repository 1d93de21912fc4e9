"""A registered version, trained again from its commit, parameters and data."""

from .conftest import Repository


def test_a_version_is_trained_again_from_its_commit_and_equal_to_the_bit(used: Repository) -> None:
    # the present code and parameters are not those that it was made from
    (used.folder / "pipeline/training/fit.py").write_text("raise SystemExit('not the commit')\n")
    used.set(train__epochs=1)
    output = used.ok("python -m pipeline reproduce champion")
    assert "version 1 is reproduced: weights and metrics are bit-identical" in output
    assert "train: 3 epochs" in output
    assert used.ok("git worktree list").count("\n") == 1
    assert "worktree" not in used.ok("git branch")
