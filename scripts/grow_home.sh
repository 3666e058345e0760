#!/usr/bin/env bash
# Growth on a rented machine, a GPU beside many cores, and its results in pieces small enough to carry
# home (the agents need the extra sbx): scripts/grow_home.sh [SUITE] [RUN] [SETTINGS of pwm grow ...].
# The simulators, scripts, planned episodes and agents take all cores, the models and policies the GPU if there
# is one. RUN/home/part.* are 4 MB each: world model, policies, a sample of the data, card, scores and curves;
# `cat part.* | tar x` puts them together. The same command goes on where it was stopped; rounds=N ends earlier.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-mt80}
run=${2:-runs/rented}
pwm=${PWM:-.venv/bin/pwm}
python=${PYTHON:-.venv/bin/python}

"$pwm" grow suite="$suite" rounds=3 seed=1 device=auto out="$run" first.held=100 first.mpc=5 \
    fill.episodes=100 fill.after=1 collect.sac.backend=jax collect.sac.net_arch=[128,128] \
    collect.sac.batch_size=128 collect.sac.learning_rate=1e-3 collect.sac.learning_starts=2500 \
    collect.sac.train_freq=8 collect.sac.gradient_steps=8 \
    model@pretrain.model=5M pretrain.steps=8000 pretrain.compile=always pretrain.precision=bfloat16 \
    extract.compile=always extract.precision=bfloat16 extract.pool=49152 extract.save_every=1000 \
    extract.learner.iterations=40 extract.learner.horizon=10 extract.learner.batch_size=128 \
    extract.learner.bc.warmup_steps=6000 extract.learner.bc.top_fraction=0.15 extract.learner.bc.weight=20 \
    extract.learner.bc.weight_final=20 extract.learner.optim.actor_lr=1e-4 extract.learner.optim.lr_final=2e-5 \
    "${@:3}"

"$python" scripts/ship.py --run "$run" --out "$run/shipping/$suite" --place "checkpoints/$suite"
rm -rf "$run/home"
mkdir "$run/home"
tar -C "$run" -c rounds.json rounds.csv timing.json curves -C shipping "$suite" |
    split -b 4M -d -a 3 - "$run/home/part."
ls -l "$run/home"
