"""Mistakes in command lines: each must end in one sentence, at once, with nothing written.

``python scripts/reliability/config_mistakes.py`` tries all of MISTAKES in this process and every
tenth as a process of its own, and prints a Markdown table of the messages. It exits with 1 if one
of them is not refused as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from samples import OWN_TASK, ROOT, make_samples

from pwm.cli.main import COMMANDS, main

# Of processor time, which other work on the machine does not change.
SECONDS = 3.0  # of a mistake in this process, where imports are done
PROCESS_SECONDS = 20.0  # of a process, with the imports of torch and the simulators

_PRETRAIN = "pretrain data={data} out=new"
_EXTRACT = "extract data={data} checkpoint={model} out=new"
_EVALUATE = "evaluate policy={policies} out=new"
_CONVERT = "convert source={file} out=new"
_COLLECT = "collect suite=pendulum-swingup out=new"
_GROW = "grow out=new"
_NETWORKS = (  # those of the policies that are there
    "learner.networks.actor=[8] learner.networks.critic=[8] learner.networks.critics=2"
)

# By topic: a command line, and words that its one message must contain. What is in braces is
# there (make_inputs), and ``new`` can be made, so that each line has one mistake.
MISTAKES: dict[str, list[tuple[str, str]]] = {
    "Commands and options": [
        ("pretrian data=x", "did you mean 'pretrain'"),
        ("frobnicate", "The commands are"),
        ("--hlep", "unknown command"),
        (f"{_PRETRAIN} --steps 3", "unknown option '--steps'"),
        (f"{_PRETRAIN} -steps=3", "unknown option '-steps=3'"),
        (f"{_PRETRAIN} --config-dir=/", "unknown option '--config-dir=/'"),
        (f"{_PRETRAIN} --cfg", "--cfg"),
        (f"{_PRETRAIN} --cfg everything", "--cfg"),
        ("data inof {data}", "did you mean"),
        ("data info", "pwm data info DIR"),
        ("data info {data} {data}", "does not understand"),
    ],
    "Settings that must be given": [
        ("pretrain", "pretrain needs data="),
        ("pretrain data={data}", "pretrain needs out="),
        ("extract data={data} out=new", "extract needs checkpoint="),
        ("extract checkpoint={model} out=new", "extract needs data="),
        ("evaluate policy={policies}", "evaluate needs out="),
        ("evaluate out=new", "evaluate needs policy="),
        ("collect suite=quick", "collect needs out="),
        ("convert out=new", "convert needs source="),
        ("convert source={file} out=new", "suite="),
        ("import checkpoint={file} out=new", "import needs suite="),
        ("export checkpoint={model}", "export needs out="),
        ("report", "report needs run="),
        (f"{_PRETRAIN} out=???", "pretrain needs out="),
    ],
    "Names of settings": [
        (f"{_PRETRAIN} stepz=3", "did you mean steps="),
        (f"{_PRETRAIN} model.mlp_dims=3", "did you mean model.mlp_dim="),
        (f"{_EXTRACT} learner.horizont=3", "did you mean learner.horizon="),
        ("quickstart out=new pretrain.stepz=1", "did you mean pretrain.steps="),
        ("quickstart out=new steps=1", "did you mean pretrain.steps="),
        (f"{_GROW} first.script=1", "did you mean first.scripted="),
        (f"{_EVALUATE} planner.sample=3", "did you mean planner.samples="),
        (f"{_PRETRAIN} +stepz=3", "did you mean steps="),
        (f"{_PRETRAIN} +steps=3", "steps"),
        (f"{_PRETRAIN} ~steps", "steps"),
        (f"{_PRETRAIN} ~stepz", "stepz"),
        (f"{_PRETRAIN} ++stepz=3", "stepz"),
        (f"{_PRETRAIN} +model._target_=os.system", "_target_"),
        (f"{_PRETRAIN} steps.first=3", "steps"),
    ],
    "Presets": [
        (f"{_PRETRAIN} model=6M", "choose from 1M, 5M, 19M, 48M, 317M, 1B, tiny"),
        (f"{_PRETRAIN} model=5m", "did you mean model=5M?"),
        (f"{_PRETRAIN} modle=5M", "did you mean model="),
        (f"{_PRETRAIN} model=[1M,5M]", "model"),
        (f"{_PRETRAIN} model=", "choose from"),
        (f"{_PRETRAIN} model=../recipe/quick", "choose from"),
        (f"{_EXTRACT} extract=papr", "did you mean extract=paper?"),
        ("quickstart out=new recipe=slow", "quick"),
        (f"{_PRETRAIN} +recipe=quick", "recipe"),
        (f"{_PRETRAIN} ~model", "model"),
    ],
    "Jobs": [
        ("collect -m out=new", "suite=mt30"),
        (f"{_EXTRACT} -m", "-m starts several jobs; give tasks="),
        (f"{_EXTRACT} -m tasks=mt31,mw-reach", "unknown suite or task 'mt31'"),
        (f"{_EXTRACT} -m tasks=quick,mw-reach", "mw-reach would be in two jobs"),
        (f"{_EXTRACT} -m tasks=mw-push,mw-reach seed=0,1", "seed=0,1 gives several values"),
        (f"{_EXTRACT} -m tasks=quick data=nowhere", "there is no nowhere"),
        (f"{_EXTRACT} -m tasks=quick learner.batch_size=0", "learner.batch_size=0"),
        (f"{_EXTRACT} -m tasks=quick launcher=slurmm", "did you mean launcher=slurm?"),
        (f"{_EXTRACT} -m tasks=quick --cfg job", "leave -m out"),
        (f"{_EXTRACT} -m tasks=range(3)", "tasks joined with commas"),
        (f"{_EVALUATE} launcher=local", "give it with -m"),
        (f"{_PRETRAIN} -m launcher=local", "pretrain has no setting 'launcher'"),
        ("status run={data}", "has no jobs"),
        ("status run=nowhere", "has no jobs"),
        ("gather run=nowhere", "has no jobs"),
        ("gather run=nowhere partial=some", "partial=some must be true or false"),
        ("gather", "gather needs run="),
    ],
    "Syntax": [
        (f"{_PRETRAIN} steps", "cannot read 'steps'"),
        (f"{_PRETRAIN} steps 3", "cannot read 'steps'"),
        (f"{_PRETRAIN} [", "cannot read '['"),
        (f"{_PRETRAIN} =3", "cannot read '=3'"),
        ("pretrain data=a=b out=new", "cannot read 'data=a=b'"),
        ("extract tasks=[walker-run checkpoint={model}", "cannot read 'tasks=[walker-run'"),
        (f"{_PRETRAIN} 'steps = {{'", "cannot read"),
        (f"{_PRETRAIN} steps=${{nothing}}", "nothing"),
        (f"{_PRETRAIN} steps=${{nothing", "cannot read"),
        (f"{_PRETRAIN} steps=${{oc.env:NO_SUCH_VARIABLE}}", "NO_SUCH_VARIABLE"),
        (f"{_PRETRAIN} steps=${{eval:1+1}}", "eval"),
        (f"{_PRETRAIN} seed=1,2", "seed"),
    ],
    "Types of values": [
        (f"{_PRETRAIN} steps=many", "steps=many must be a whole number"),
        (f"{_PRETRAIN} steps=1.5", "steps=1.5 must be a whole number"),
        (f"{_PRETRAIN} steps=1e3", "must be a whole number"),
        (f"{_PRETRAIN} steps=null", "steps=null must be a whole number"),
        (f"{_PRETRAIN} steps=", "steps= must be a whole number"),
        (f"{_PRETRAIN} steps=true", "steps"),
        (f"{_PRETRAIN} lr=[1,2]", "lr"),
        (f"{_PRETRAIN} lr=fast", "lr=fast must be a number"),
        (f"{_PRETRAIN} normalize_obs=perhaps", "normalize_obs=perhaps must be true or false"),
        (f"{_PRETRAIN} horizon.lengths=4", "horizon.lengths"),
        (f"{_PRETRAIN} horizon.lengths=[4,b]", "horizon.lengths"),
        (f"{_PRETRAIN} horizon=4", "horizon"),
        (f"{_PRETRAIN} model=null", "model"),
        (f"{_PRETRAIN} out=null", "out"),
        (f"{_PRETRAIN} data=[a,b]", "data"),
        (f"{_EXTRACT} learner.networks.actor=wide", "learner.networks.actor"),
        (f"{_EVALUATE} baselines=random", "baselines"),
        ("quickstart out=new seed=one", "seed=one must be a whole number"),
        ("collect out=new suite=3", "names no tasks"),
        ("collect out=new suite={a:b}", "names no tasks"),
        (f"{_EVALUATE} tasks=true", "names no tasks"),
        (f"{_COLLECT} episodes=lots", "'lots'"),
        (f"{_COLLECT} episodes=1.5", "1.5"),
        (f"{_COLLECT} episodes=true", "True"),
        (f"{_COLLECT} episodes=[1,2]", "episodes"),
    ],
    "Ranges": [
        (f"{_PRETRAIN} steps=0", "steps=0"),
        (f"{_PRETRAIN} steps=-5", "steps=-5"),
        (f"{_PRETRAIN} batch_size=0", "batch_size=0"),
        (f"{_PRETRAIN} lr=-1", "lr=-1.0"),
        (f"{_PRETRAIN} lr=nan", "lr=nan"),
        (f"{_PRETRAIN} lr=inf", "lr=inf"),
        (f"{_PRETRAIN} grad_clip=0", "grad_clip=0"),
        (f"{_PRETRAIN} rho=2", "rho=2"),
        (f"{_PRETRAIN} loss.reward=nan", "loss.reward=nan"),
        (f"{_PRETRAIN} seed=-1", "seed=-1"),
        (f"{_PRETRAIN} seed=99999999999999999999", "seed=99999999999999999999"),
        (f"{_PRETRAIN} keep_last=0", "keep_last=0"),
        (f"{_PRETRAIN} horizon.lengths=[0]", "horizon.lengths"),
        (f"{_PRETRAIN} horizon.lengths=[]", "horizon"),
        (f"{_PRETRAIN} horizon.lengths=[] horizon.starts=[]", "horizon"),
        (f"{_PRETRAIN} horizon.starts=[0.5]", "begin with 0.0"),
        (f"{_PRETRAIN} horizon.starts=[nan]", "begin with 0.0"),
        (f"{_PRETRAIN} horizon.lengths=[4,8] horizon.starts=[0.0]", "one entry for each"),
        (f"{_PRETRAIN} model.latent_dim=0", "latent_dim=0"),
        (f"{_PRETRAIN} model.latent_dim=20", "must divide latent_dim=20"),
        (f"{_PRETRAIN} model.num_bins=1", "num_bins=1"),
        (f"{_PRETRAIN} model.vmin=3 model.vmax=3", "must be below"),
        (f"{_PRETRAIN} model.vmax=inf", "vmax=inf"),
        (f"{_PRETRAIN} model.dropout=1.5", "dropout=1.5"),
        (f"{_PRETRAIN} model.encoder_layers=1000000000", "at most 1024"),
        (f"{_PRETRAIN} model.mlp_dim=1000000", "not enough memory"),
        (f"{_EXTRACT} learner.iterations=0", "iterations=0"),
        (f"{_EXTRACT} learner.horizon=-1", "horizon=-1"),
        (f"{_EXTRACT} learner.optim.betas=[0.9]", "betas"),
        (f"{_EXTRACT} learner.networks.actor=[0]", "actor=[0]"),
        (f"{_EXTRACT} learner.networks.log_std=nan", "log_std=nan"),
        (f"{_EXTRACT} learner.discount=1.5", "discount=1.5"),
        (f"{_EXTRACT} learner.critic.iterations=0", "critic: iterations=0 must be at least 1"),
        (f"{_EXTRACT} learner.bc.top_fraction=0", "bc: top_fraction=0"),
        (f"{_EXTRACT} pool=0", "pool=0"),
        (f"{_EXTRACT} group_size=0", "group_size=0"),
        (f"{_EXTRACT} seed=-3", "seed=-3"),
        (f"{_EXTRACT} finetune.learner.lr=nan", "lr=nan"),
        (f"{_EVALUATE} episodes=0", "episodes=0"),
        (f"{_EVALUATE} seed=-5", "seed=-5"),
        (f"{_EVALUATE} seed=4294967290", "seed"),
        (f"{_EVALUATE} workers=0", "workers=0"),
        (f"{_EVALUATE} batch=0", "batch=0"),
        (f"{_EVALUATE} worker_timeout=0", "worker_timeout=0"),
        (f"{_EVALUATE} max_faults=0", "max_faults=0"),
        (f"{_EVALUATE} bc_top_fraction=7", "bc_top_fraction=7"),
        (f"{_EVALUATE} video=-1", "video=-1"),
        (f"{_EVALUATE} cloning.updates=0", "updates=0"),
        (f"{_EVALUATE} cloning.hidden=[-4]", "[-4]"),
        (f"{_EVALUATE} cloning.lr=inf", "lr=inf"),
        (f"{_EVALUATE} planner.elites=1000", "elites=1000"),
        (f"{_EVALUATE} planner.temperature=nan", "temperature=nan"),
        (f"{_EVALUATE} planner.max_std=inf", "max_std"),
        (f"{_COLLECT} episodes=-1", "episodes=-1"),
        (f"{_COLLECT} episodes=0", "no episode"),
        (f"{_COLLECT} episodes={{}}", "no episode"),
        (f"{_COLLECT} seed=-1", "seed=-1"),
        (f"{_COLLECT} workers=-2", "workers=-2"),
        (f"{_CONVERT} suite=mt30 limit=0", "limit=0"),
        (f"{_CONVERT} suite=mt30 files=-1 to=tdmpc2", "files=-1"),
        ("quickstart out=new evaluate.episodes=0", "episodes=0"),
        ("quickstart out=new extract.learner.horizon=0", "horizon=0"),
        ("quickstart out=new pretrain.log_every=0", "log_every=0"),
        ("quickstart out=new seed=-1", "seed=-1"),
        ("quickstart out=new collect.workers=-1", "workers=-1"),
    ],
    "Tasks and suites": [
        ("collect out=new suite=mt31", "did you mean 'mt30'"),
        ("collect out=new suite=[walker-run,walker-rum]", "did you mean 'walker-run'"),
        ("collect out=new suite=[]", "no task was named"),
        ("collect out=new suite=", "no task was named"),
        ("collect out=new suite=[walker-run,walker-run]", "named twice"),
        ("collect out=new suite=null", "names no tasks"),
        (f"{_COLLECT} episodes={{walker-run:3}}", "not in suite"),
        ("collect out=new suite=nowhere.yaml", "no task file nowhere.yaml"),
        ("collect out=new suite={broken}", "obs_dim"),
        ("collect out=new suite={unknown_env} episodes=1", "NoSuchEnv-v0"),
        (f"{_PRETRAIN} suite=walker-run", "walker-run"),
        (f"{_PRETRAIN} suite=mt31", "did you mean 'mt30'"),
        (f"{_EXTRACT} tasks=[walker-rum]", "did you mean 'walker-run'"),
        (f"{_EXTRACT} tasks=[walker-run]", "walker-run"),
        (f"{_EVALUATE} tasks=[walker-rum]", "did you mean 'walker-run'"),
        (f"{_EVALUATE} tasks=[walker-run]", "no policy for walker-run"),
        (f"{_CONVERT} suite=mt30 tasks=[mw-push]", "mw-push"),
        ("import checkpoint={file} suite=mt31 out=new", "did you mean 'mt30'"),
        ("quickstart out=new extract.tasks=[walker-run]", "extract.tasks"),
        ("quickstart out=new evaluate.tasks=[walker-rum]", "did you mean 'walker-run'"),
        ("quickstart out=new evaluate.tasks=[walker-run]", "evaluate.tasks"),
        ("quickstart out=new collect.suite=mt30", "not in suite 'mt30'"),
    ],
    "Combinations": [
        (f"{_PRETRAIN} q_and_prior=true model.num_q=1", "num_q"),
        (f"{_PRETRAIN} horizon.lengths=[400]", "401 rows"),
        (f"{_PRETRAIN} balance=evenly", "balance"),
        (f"{_PRETRAIN} on_error=ignore", "stop or skip"),
        (f"{_PRETRAIN} compile=yes", "unknown compile"),
        (f"{_PRETRAIN} precision=float16", "unknown precision"),
        (f"{_PRETRAIN} data_device=cuda", "needs device=cuda"),
        (f"{_PRETRAIN} data_memory=-1", "data_memory=-1"),
        (f"{_PRETRAIN} resume=always", "resume"),
        (f"{_PRETRAIN} wandb_project=mine", "wandb"),
        ("pretrain data={data} out={data}", "{data}"),
        (f"{_EXTRACT} learner.critic.batches=7", "critic.batches=7"),
        (f"{_EXTRACT} learner.critic.scale_values=true learner.discount=1.0", "scale_values"),
        (f"{_EXTRACT} learner.reward_units=dollars", "reward_units"),
        (f"{_EXTRACT} finetune.enabled=true learner.horizon=400", "401 rows"),
        (f"{_EXTRACT} wandb_project=mine", "wandb"),
        (f"{_EVALUATE} baselines=[rand]", "did you mean 'random'"),
        (f"{_EVALUATE} baselines=[bc]", "give data=DIR"),
        (f"{_EVALUATE} baselines=[planner]", "checkpoint=DIR"),
        ("evaluate policy=planner out=new checkpoint={model}", "q_and_prior=true"),
        ("evaluate policy=planner+actor out=new checkpoint={model}", "policies=DIR"),
        (f"{_EVALUATE} policies={{policies}}", "policies="),
        (f"{_EVALUATE} resume=yes", "resume"),
        (f"{_COLLECT} behaviour=lazy", "unknown behaviour 'lazy'"),
        (f"{_COLLECT} behaviour=scriptd", "did you mean 'scripted'"),
        ("collect out=new suite=walker-run behaviour=scripted", "no scripted controller"),
        ("collect out=new suite=mw-push behaviour=mpc", "no planning on the simulator"),
        ("collect out=new suite=walker-run behaviour=held", "no script that could hold still"),
        (f"{_COLLECT} mpc.samples=1", "samples=1 must be at least 2"),
        (f"{_COLLECT} mpc.elites=40", "elites=40 must be at most 32"),
        (f"{_COLLECT} mpc.most=10", "most=10 must be at least 16"),
        (f"{_COLLECT} mpc.every=20", "every=20 must be at most 16"),
        (f"{_COLLECT} mpc.sigmas=[]", "numbers above 0"),
        (f"{_COLLECT} mpc.correlation=1", "correlation"),
        (f"{_EXTRACT} learner.bc.warmup_steps=-1", "bc: warmup_steps=-1"),
        (f"{_COLLECT} behaviour=policy", "policy=DIR"),
        (f"{_COLLECT} policy={{policies}}/pendulum-swingup", "go together"),
        (
            "collect out=new suite=walker-run behaviour=policy "
            "policy={policies}/pendulum-swingup",
            "walker-run",
        ),
        (f"{_CONVERT} suite=mt30 to=store on_error=ignore", "unknown on_error 'ignore'"),
        (f"{_CONVERT} suite=mt30 to=csv", "unknown to 'csv'"),
        ("convert source=minari:x out=new to=tdmpc2", "episode store"),
        ("quickstart out=new pretrain.balance=evenly", "balance"),
        ("quickstart out=new extract.resume=always", "resume"),
        ("quickstart out=new extract.on_error=ignore", "stop or skip"),
        ("quickstart out=new pretrain.data_device=gpu", "data_device"),
        ("quickstart out=new evaluate.baselines=[planner]", "checkpoint=DIR"),
        ("quickstart out=new pretrain.horizon.lengths=[4,400]", "400"),
        ("quickstart out=new extract.wandb_project=mine", "wandb"),
        ("quickstart out=new pretrain.out=new/data", "same out="),
        (f"{_GROW} first.ou=0 first.random=0 first.scripted=0", "first: it has no episode"),
        (f"{_GROW} extract.out=new/policies", "must differ by round"),
        (
            f"{_GROW} pretrain.horizon.lengths=[200] pretrain.horizon.starts=[0.0]",
            "pretrain: a horizon of 200",
        ),
        (f"{_EXTRACT} init={{policies}} {_NETWORKS} learner.discount=0.9", "discount"),
        (f"{_COLLECT} policy_noise=[]", "policy_noise=[]"),
    ],
    "Devices": [
        (f"{_PRETRAIN} device=gpu", "unknown device 'gpu'"),
        (f"{_PRETRAIN} device=cuda", "device=cuda"),
        (f"{_PRETRAIN} device=cuda:7", "device=cuda:7"),
        (f"{_PRETRAIN} device=cpu:x", "unknown device 'cpu:x'"),
        (f"{_PRETRAIN} device=meta", "device=meta"),
        (f"{_PRETRAIN} device=", "device= is empty"),
        (f"{_EXTRACT} device=cuda", "device=cuda"),
        (f"{_EVALUATE} device=tpu", "unknown device 'tpu'"),
        ("quickstart out=new device=cuda", "device=cuda"),
        ("quickstart out=new extract.device=gpu", "extract: unknown device 'gpu'"),
    ],
    "Paths": [
        ("pretrain data=nowhere out=new", "no episode store"),
        ("pretrain data= out=new", "data= is empty"),
        ("pretrain data={file} out=new", "no episode store"),
        ("pretrain data={model} out=new", "no episode store"),
        (f"{_PRETRAIN} init=nowhere", "nowhere"),
        (f"{_PRETRAIN} init={{policies}}", "{policies}"),
        ("pretrain data={data} out={file}", "{file}"),
        ("pretrain data={data} out={file}/below", "{file}"),
        ("pretrain data={data} out=", "out= is empty"),
        ("pretrain data={data} out=/proc/pwm", "/proc/pwm"),
        ("extract checkpoint=nowhere data={data} out=new", "nowhere"),
        ("extract checkpoint={data} data={data} out=new", "{data}"),
        ("extract checkpoint={model} data=nowhere out=new", "no episode store"),
        ("extract checkpoint={model} data={data} out={file}", "{file}"),
        ("evaluate policy=nowhere out=new", "nowhere"),
        ("evaluate policy={data} out=new", "holds no policy"),
        ("evaluate policy={policies} out={file}", "{file}"),
        (f"{_EVALUATE} data=nowhere baselines=[bc]", "no episode store"),
        ("evaluate policy=planner out=new checkpoint=nowhere", "nowhere"),
        ("report run=nowhere", "nowhere"),
        ("report run={model}", "results.json"),
        ("report run={file}", "{file}"),
        ("data verify nowhere", "no episode store"),
        ("data verify {file}", "no episode store"),
        ("collect suite=pendulum-swingup out={file}", "{file}"),
        ("collect suite=pendulum-swingup out={file}/below", "{file}"),
        ("collect suite=pendulum-swingup out={model}", "{model}"),
        ("collect suite=walker-run out={data}", "{data} was made for suite"),
        (f"{_COLLECT} behaviour=policy policy=nowhere", "nowhere"),
        (f"{_COLLECT} behaviour=policy policy={{data}}", "{data}"),
        ("convert source=nowhere out=new suite=mt30", "nowhere"),
        (f"{_CONVERT} suite=mt30", "{file}"),
        ("convert source=minari:nowhere out=new suite={task}", "nowhere"),
        ("convert source={data} to=tdmpc2 steps=30 out={model}", "{model}"),
        ("import checkpoint=nowhere.pt suite=mt30 out=new", "nowhere.pt"),
        ("import checkpoint={file} suite=mt30 out=new", "{file}"),
        ("import checkpoint={file} suite=mt30 out={model}", "{model}"),
        ("export checkpoint=nowhere out=new", "nowhere"),
        ("export checkpoint={model} out={file}", "{file}"),
        ("export checkpoint={model} out={file}/below", "{file}"),
        ("quickstart out={file}", "{file}"),
        ("quickstart out=/dev/null/run", "/dev/null is a file"),
        ("quickstart out=new pretrain.init=nowhere", "nowhere"),
        ("quickstart out=new extract.data=nowhere", "nowhere"),
        ("quickstart out=new extract.checkpoint=nowhere", "nowhere"),
        ("quickstart out=new extract.init=nowhere", "extract: there is no nowhere"),
        ("quickstart out=new extract.ensemble=[nowhere]", "extract: there is no nowhere"),
        ("quickstart out=new evaluate.policy=nowhere", "nowhere"),
        (f"{_GROW} extract.ensemble=[nowhere]", "extract: there is no nowhere"),
        (f"{_GROW} pretrain.data=nowhere", "pretrain: there is no nowhere"),
    ],
}  # fmt: skip


def make_inputs(directory: Path) -> dict[str, Path]:
    """What the lines of MISTAKES name: genuine inputs, and two task files with a mistake."""
    inputs = make_samples(directory)
    inputs["broken"] = directory / "broken.yaml"
    inputs["broken"].write_text(OWN_TASK.replace("obs_dim: 3", "obs_dim: three"))
    inputs["unknown_env"] = directory / "unknown_env.yaml"
    inputs["unknown_env"].write_text(OWN_TASK.replace("Pendulum-v1", "NoSuchEnv-v0"))
    return inputs


def filled(text: str, inputs: Mapping[str, Path]) -> str:
    """The text with the paths of the inputs that it names in braces."""
    for name, path in inputs.items():
        text = text.replace(f"{{{name}}}", str(path))
    return text


@dataclass(frozen=True)
class Outcome:
    """What a command line came to: exit code, what it printed, the processor's seconds."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def message(self) -> str:
        """The one sentence."""
        return self.err.removeprefix("pwm: error: ").strip()

    def fault(self, words: str, allowed_seconds: float) -> str | None:
        """What is wrong with it as an answer to a mistake, or None."""
        if self.code != 1:
            return f"exit code {self.code}"
        if not self.err.startswith("pwm: error: ") or self.err.count("\n") != 1 or self.out:
            return "not one sentence"
        if words not in self.err:
            return f"does not say '{words}'"
        if self.seconds > allowed_seconds:
            return f"took {self.seconds:.1f} s"
        return None


def in_this_process(words: list[str]) -> Outcome:
    """Run a command line here; a traceback becomes an exit code that no command has."""
    out, err = io.StringIO(), io.StringIO()
    begun = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except Exception:
            code = -1
    return Outcome(code, out.getvalue(), err.getvalue(), time.process_time() - begun)


def in_its_own_process(words: list[str]) -> Outcome:
    """Run a command line as a user does."""
    begun = _seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-m", "pwm.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, _seconds_of_children() - begun)


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def import_commands() -> None:
    """Import what the commands do, so that a mistake's time is its own."""
    for command in COMMANDS.values():
        import_module(command.module)


def try_all(inputs: Mapping[str, Path], sample: int) -> list[str]:
    """Try every mistake, and every ``sample``-th in a process of its own; print the table.

    Returns:
        What is wrong, a line each.
    """
    faults, count, processes = [], 0, []
    import_commands()
    before = _content(inputs)
    for topic, rows in MISTAKES.items():
        print(f"| **{topic}** | |\n| --- | --- |" if not count else f"| **{topic}** | |")
        for line, words in rows:
            with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
                arguments, wanted = shlex.split(filled(line, inputs)), filled(words, inputs)
                outcome = in_this_process(arguments)
                found = [outcome.fault(wanted, SECONDS)]
                if count % sample == 0:
                    processes.append(in_its_own_process(arguments))
                    found.append(processes[-1].fault(wanted, PROCESS_SECONDS))
                if any(Path(empty).iterdir()):
                    found.append("something was written")
            faults += [f"pwm {line}: {fault}" for fault in found if fault]
            print(f"| `pwm {line}` | {_for_a_reader(outcome.message, inputs)} |")
            count += 1
    if _content(inputs) != before:
        faults.append("the inputs were changed")
    print(f"\n{count} mistakes, {count - len(faults)} refused as they should be; ", end="")
    print(f"{len(processes)} also as processes of their own, none slower than ", end="")
    print(f"{max(outcome.seconds for outcome in processes):.1f} s of processor time.")
    return faults


def _content(inputs: Mapping[str, Path]) -> dict[Path, float]:
    files = (file for path in inputs.values() for file in (path, *path.rglob("*")))
    return {file: file.stat().st_mtime for file in files if file.name != ".lock"}


def _for_a_reader(message: str, inputs: Mapping[str, Path]) -> str:
    for name, path in inputs.items():
        message = message.replace(str(path), f"{{{name}}}")
    return message.replace("|", "\\|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=10, help="also as a process: every Nth")
    with tempfile.TemporaryDirectory() as directory:
        wrong = try_all(make_inputs(Path(directory)), parser.parse_args().sample)
    for text in wrong:
        print(text, file=sys.stderr)
    sys.exit(bool(wrong))
