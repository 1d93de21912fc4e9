"""Search hyper-parameters: run the trials of a study in waves, one trial per process.

What a wave tries, and which of its trials are pruned, depends only on the waves before it and not
on which trial is faster. So a search gives the same result with the same number of processes.
"""

import time
from concurrent.futures import as_completed

import optuna
from tqdm.auto import tqdm

from pipeline.params import TrainParams, TuneParams
from pipeline.tracking.processes import PROCESS, this_process
from pipeline.training import trial, workers
from pipeline.training.random_streams import derived_seed
from pipeline.training.trials import finish, finished


def run(study: optuna.Study, train: TrainParams, tune: TuneParams, context: trial.Context) -> None:
    """Run the trials that `study` lacks, until all have run or the time is up.

    Parameters
    ----------
    study : optuna.Study
    train : TrainParams
        The parameters that are not searched.
    tune : TuneParams
    context : trial.Context
    """
    missing = tune.trials - len(finished(study))
    if missing <= 0:
        return
    deadline = time.monotonic() + (tune.timeout or float("inf"))
    processes = workers.process_count(tune.workers, missing)
    with (
        workers.pool(processes) as executor,
        tqdm(total=missing, desc="tune", unit="trial", disable=None) as bar,
    ):
        while (done := len(finished(study))) < tune.trials:
            wave = []
            for place in range(min(processes, tune.trials - done)):
                study.sampler = sampler(tune, done + place)
                asked = study.ask()
                asked.set_user_attr(PROCESS, this_process())
                suggested = {
                    key: trial.suggest(asked, key, domain) for key, domain in tune.space.items()
                }
                wave.append((asked, suggested))
            jobs = [
                executor.submit(trial.run, asked, suggested, train, tune, context)
                for asked, suggested in wave
            ]
            for _ in as_completed(jobs):
                bar.update()
            for (asked, _), job in zip(wave, jobs, strict=True):
                finish(study, asked.number, job.result())
            if time.monotonic() > deadline:
                return


def sampler(tune: TuneParams, place: int) -> optuna.samplers.BaseSampler:
    """Make the sampler of the trial at `place`, counted from 0.

    Every trial has a new sampler with its own seed, so that a resumed search suggests what an
    uninterrupted one would have suggested.
    """
    return optuna.samplers.TPESampler(
        seed=derived_seed(tune.seed, "sampler", place), n_startup_trials=max(2, tune.trials // 3)
    )
