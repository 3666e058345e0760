#!/usr/bin/env bash
# A world model of MT30 alone, of TD-MPC2's size 5M, from the data of scripts/grow_mt80.sh, three seeds of
# policies from it, the page of them, and eight policies that gradients take further:
# scripts/mt30_model.sh [RUN] [DATA] [PAGE].
# 24 minutes of two CPU cores with bfloat16 instructions, and 18 of one for each seed. The same
# command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/mt30}
data=${2:-runs/mt80/data}
page=${3:-docs/results/mt30.md}
pwm=${PWM:-.venv/bin/pwm}

"$pwm" pretrain suite=mt30 data="$data" out="$run/world_model" model=5M steps=18000 batch_size=256 lr=1e-3 \
    lr_final=1e-4 warmup=100 horizon.lengths=[4,8] horizon.starts=[0,0.8] seed=1 device=cpu \
    compile=always precision=bfloat16 save_every=1000 diagnose_every=6000
scripts/suite_seeds.sh mt30 "$run/world_model" "$data" "$run/seeds"
"$pwm" report run="[$run/seeds/0,$run/seeds/1,$run/seeds/2]" notes=scripts/notes/mt30.md results="$page"

"$pwm" extract tasks=[walker-walk,walker-run,cheetah-run,pendulum-swingup,cup-spin,finger-spin,fish-swim,hopper-stand] \
    checkpoint="$run/world_model" data="$data" init="$run/seeds/0/policies" out="$run/climb/policies" seed=0 \
    device=cpu compile=always precision=bfloat16 extract=small_data pool=49152 save_every=1000 \
    learner.iterations=150 learner.horizon=10 learner.batch_size=128 learner.bc.top_fraction=0.15 \
    learner.bc.weight=2 learner.bc.weight_final=1 learner.optim.actor_lr=2e-4 learner.optim.lr_final=2e-5
"$pwm" evaluate policy="$run/climb/policies" baselines=[] episodes=10 seed=5000 out="$run/climb"
