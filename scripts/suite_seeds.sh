#!/usr/bin/env bash
# Three seeds of policies for all tasks of a suite from one world model and one store, each evaluated, and
# beside the first what cloning from observations reaches: scripts/suite_seeds.sh SUITE WORLD_MODEL DATA OUT.
# OUT gets a directory a seed. The same command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=$1 model=$2 data=$3 out=$4
pwm=${PWM:-.venv/bin/pwm}

baselines=random,bc,bc_best,data_mean,data_best
for seed in 0 1 2; do
    "$pwm" extract tasks="$suite" checkpoint="$model" data="$data" out="$out/$seed/policies" \
        seed="$seed" device=cpu compile=always precision=bfloat16 extract=small_data pool=49152 \
        group_size=16 save_every=1000 learner.iterations=40 learner.horizon=10 \
        learner.batch_size=128 learner.bc.warmup_steps=12000 learner.bc.top_fraction=0.15 \
        learner.bc.weight=20 learner.bc.weight_final=20 \
        learner.optim.actor_lr=1e-4 learner.optim.lr_final=2e-5
    "$pwm" evaluate policy="$out/$seed/policies" data="$data" baselines="[$baselines]" \
        episodes=10 seed=5000 out="$out/$seed"
    baselines=random,data_mean,data_best
done
