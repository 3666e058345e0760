#!/usr/bin/env bash
# From nothing but the simulators to policies on all of MT80: scripts/grow_mt80.sh [RUN]. It makes what
# checkpoints/mt80 ships, on two CPU cores with bfloat16 instructions; RUN is runs/mt80 unless given. The
# same command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/mt80}
pwm=${PWM:-.venv/bin/pwm}

scripted=pendulum-swingup,pendulum-spin,cartpole-balance,cartpole-balance-sparse
scripted+=,cartpole-swingup,cartpole-swingup-sparse
planned=walker-stand,walker-walk,walker-run,cheetah-run,reacher-easy,reacher-hard,acrobot-swingup
planned+=,cup-catch,finger-spin,finger-turn-easy,finger-turn-hard,fish-swim,hopper-stand,hopper-hop
planned+=,walker-walk-backwards,walker-run-backwards,cheetah-run-backwards,cheetah-run-front
planned+=,cheetah-run-back,cheetah-jump,hopper-hop-backwards,reacher-three-easy,reacher-three-hard,cup-spin

collect() {  # BEHAVIOUR SUITE EPISODES
    "$pwm" collect behaviour="$1" suite="$2" episodes="$3" seed=1 out="$run/data"
}
collect ou mt80 15
collect scripted "[$scripted]" 60
collect scripted mt50 100
collect mpc "[$planned]" 5

grow() {  # ROUNDS UPDATES ITERATIONS CLONE_WEIGHT ITS_LAST
    "$pwm" grow suite=mt80 rounds="$1" seed=1 device=cpu out="$run/grown" collect.out="$run/data" \
        first.random=2 first.ou=0 first.scripted=0 first.mpc=0 episodes=6 least=3 \
        model@pretrain.model=1M pretrain.steps="$2" \
        pretrain.compile=always pretrain.precision=bfloat16 \
        extract.compile=always extract.precision=bfloat16 \
        extract.learner.iterations="$3" extract.learner.horizon=10 \
        extract.learner.clone_weight="$4" extract.learner.clone_weight_final="$5" \
        extract.learner.clone_best=0.3
}
grow 1 11000 300 1.0 0.3
grow 2 4000 250 2.0 1.0
