#!/usr/bin/env bash
# Three seeds of policies for all of MT80, from the last world model and the data of
# scripts/grow_mt80.sh, beside cloning and what the data hold, and RUN/RESULTS.md of them:
# scripts/mt80_seeds.sh [RUN] [WORLD_MODEL].
# RUN has data/; half an hour a seed on one CPU core with bfloat16 instructions. The same
# command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/mt80}
model=${2:-$run/grown/round_05/world_model}
pwm=${PWM:-.venv/bin/pwm}

baselines=random,bc,bc_best,data_mean,data_best
for seed in 0 1 2; do
    "$pwm" extract tasks=mt80 checkpoint="$model" data="$run/data" out="$run/seeds/$seed/policies" \
        seed="$seed" device=cpu compile=always precision=bfloat16 extract=small_data pool=49152 \
        group_size=16 save_every=1000 learner.iterations=40 learner.horizon=10 \
        learner.batch_size=128 learner.clone_first=12000 learner.clone_best=0.15 \
        learner.clone_weight=20 learner.clone_weight_final=20 \
        learner.actor_lr=1e-4 learner.lr_final=2e-5
    "$pwm" evaluate policy="$run/seeds/$seed/policies" data="$run/data" baselines="[$baselines]" \
        episodes=10 seed=5000 out="$run/seeds/$seed"
    baselines=random,data_mean,data_best
done

strips=walker-stand,walker-walk,walker-run,cheetah-run,reacher-hard,pendulum-swingup,cartpole-swingup,cup-catch
strips+=,finger-spin,hopper-stand,mw-door-close,mw-drawer-open,mw-hammer,mw-push-wall
"$pwm" evaluate policy="$run/seeds/0/policies" tasks="[$strips]" episodes=1 seed=5000 strip=1 baselines=[] \
    out="$run/seeds/strips"
"$pwm" report run="[$run/seeds/0,$run/seeds/1,$run/seeds/2]" strips="$run/seeds/strips/strips" \
    results="$run/RESULTS.md"
