#!/usr/bin/env bash
# Three seeds of policies for all of MT80, from the last world model and the data of
# scripts/grow_mt80.sh, beside cloning, planning and what the data hold, and the page of them:
# scripts/mt80_seeds.sh [RUN] [WORLD_MODEL] [PAGE].
# RUN has data/; half an hour a seed on one CPU core with bfloat16 instructions, and the planner
# 70 minutes. The same command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/mt80}
model=${2:-$run/grown/round_05/world_model}
page=${3:-docs/results/mt80.md}
pwm=${PWM:-.venv/bin/pwm}

scripts/suite_seeds.sh mt80 "$model" "$run/data" "$run/seeds"
"$pwm" evaluate policy=planner+actor policies="$run/seeds/0/policies" checkpoint="$model" tasks=mt80 \
    episodes=1 seed=5000 baselines=[] out="$run/planner"

strips=walker-stand,walker-walk,walker-run,cheetah-run,reacher-hard,pendulum-swingup,cartpole-swingup,cup-catch
strips+=,finger-spin,hopper-stand,mw-door-close,mw-drawer-open,mw-hammer,mw-push-wall
"$pwm" evaluate policy="$run/seeds/0/policies" tasks="[$strips]" episodes=1 seed=5000 strip=1 baselines=[] \
    out="$run/seeds/strips"
"$pwm" report run="[$run/seeds/0,$run/seeds/1,$run/seeds/2,$run/planner]" \
    grow="[$run/grown]" strips="$run/seeds/strips/strips" notes=scripts/notes/mt80.md results="$page"
