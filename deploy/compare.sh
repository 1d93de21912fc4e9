#!/usr/bin/env bash
# Compare parameters, metrics and plots of this commit with those of BASE: build/compare.md, build/plots/.
# This also runs the pipeline at BASE, in a worktree with the same cache, because only outputs can be
# compared.
set -euo pipefail
base=${1:?"a commit to compare with, e.g. origin/main"}
tree=$PWD/build/base

mkdir -p build
git worktree remove --force "$tree" 2> /dev/null || true
git worktree add --quiet --detach "$tree" "$base"
trap 'git worktree remove --force "$tree"' EXIT
cache=$(cd "$(dvc cache dir)" && pwd)
commit() { git -c user.name=compare -c user.email=compare@localhost commit --quiet --no-verify "$@"; }
(
    cd "$tree"
    dvc config --local cache.dir "$cache"
    MLFLOW_TRACKING_URI=sqlite:///mlflow.db dvc repro --quiet
    git add --force dvc.lock
    commit --allow-empty --message "outputs of $base"
)
before=$(git -C "$tree" rev-parse HEAD)
{
    echo "### Pipeline compared with \`$(git rev-parse --short "$base")\`"
    echo
    echo "Metrics"
    echo
    dvc metrics diff --all --md "$before"
    echo
    echo "Parameters"
    echo
    dvc params diff --md "$before"
    echo
    echo "The artifact \`pages\` of this run contains the plots of both, and the notebooks."
} > build/compare.md
dvc plots diff --out build/plots "$before" > /dev/null
cat build/compare.md
