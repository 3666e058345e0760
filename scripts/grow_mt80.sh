#!/usr/bin/env bash
# From nothing but the simulators to policies on all of MT80: scripts/grow_mt80.sh [RUN]. It makes what
# checkpoints/mt80 ships, on two CPU cores with bfloat16 instructions, step by step as it was made: some
# data, two rounds of growth, more data where they fell short, and further rounds. RUN is runs/mt80 unless
# given. The same command goes on where it was stopped.
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
reachers=reacher-easy,reacher-hard,reacher-three-easy,reacher-three-hard

planned_sources=[collect-mpc-seed1-b79e11e4,collect-mpc-seed1-b29c065d]  # of what is planned below

collect() {  # BEHAVIOUR SUITE EPISODES [SETTINGS]
    "$pwm" collect behaviour="$1" suite="$2" episodes="$3" seed=1 out="$run/data" "${@:4}"
}

learn() {  # SUITE EPISODES [SETTINGS]
    collect sac "$1" "$2" sac.backend=jax sac.net_arch=[128,128] sac.batch_size=128 \
        sac.learning_rate=1e-3 sac.learning_starts=2500 sac.train_freq=8 sac.gradient_steps=8 \
        sac.gamma=0.99 "${@:3}"
}

grow() {  # OUT ROUNDS UPDATES ITERATIONS CLONE_WEIGHT ITS_LAST CLONE_BEST [SETTINGS]
    "$pwm" grow suite=mt80 rounds="$2" seed=1 device=cpu out="$1" collect.out="$run/data" \
        first.random=2 first.ou=0 first.scripted=0 first.held=0 first.mpc=0 episodes=6 least=3 \
        model@pretrain.model=1M pretrain.steps="$3" \
        pretrain.compile=always pretrain.precision=bfloat16 \
        extract.compile=always extract.precision=bfloat16 \
        extract.learner.iterations="$4" extract.learner.horizon=10 extract.save_every=500 \
        extract.learner.bc.weight="$5" extract.learner.bc.weight_final="$6" \
        extract.learner.bc.top_fraction="$7" "${@:8}"
}

collect ou mt80 15
collect scripted "[$scripted]" 60
collect scripted mt50 100
collect mpc "[$planned]" 5
grow "$run/begun" 1 11000 300 1.0 0.3 0.3
grow "$run/begun" 2 4000 250 2.0 1.0 0.3

collect held mt50 150
collect mpc "[$reachers]" 20 mpc.samples=16 mpc.every=4
collect mpc walker-stand 15
collect mpc "[walker-walk,fish-swim,finger-turn-easy,finger-turn-hard]" 13
collect mpc "[walker-run,walker-walk-backwards,walker-run-backwards]" 11
collect mpc "[cheetah-run,cheetah-run-backwards,cheetah-run-front,cheetah-run-back,cheetah-jump]" 10
collect mpc "[cartpole-balance-sparse,cartpole-swingup,cup-catch]" 6
cloned=(extract.learner.bc.warmup_steps=4000 extract.learner.optim.actor_lr=2e-4 extract.learner.optim.lr_final=2e-5)
cloned+=(pretrain.init="$run/begun/round_01/world_model")
grow "$run/grown" 1 27000 200 10 5 0.25 "${cloned[@]}" pretrain.horizon.starts=[0,0.78]

collect mpc "[$reachers]" 70 mpc.samples=16 mpc.every=4
collect mpc "[finger-turn-easy,finger-turn-hard]" 33
collect scripted "[cartpole-swingup,cartpole-swingup-sparse]" 120 seed=2
grow "$run/grown" 2 5000 250 6 3 0.2 "${cloned[@]}" pretrain.horizon.starts=[0,0.7]

collect scripted "[$reachers]" 150 seed=2
cloned+=(episodes=2 least=1 extract.learner.optim.actor_lr=1e-4)
grow "$run/grown" 3 3000 60 40 40 0.2 "${cloned[@]}" pretrain.horizon.starts=[0,0.7]

learn "[cup-catch,walker-stand,walker-walk,walker-run,walker-walk-backwards,walker-run-backwards]" \
    "{cup-catch: 80, walker-stand: 110, walker-walk: 120, walker-run: 220, walker-walk-backwards: 130,
    walker-run-backwards: 220}" seed=3
learn "[cheetah-run,cheetah-run-backwards,cheetah-run-front,cheetah-run-back,cheetah-jump]" \
    "{cheetah-run: 250, cheetah-run-backwards: 200, cheetah-run-front: 200, cheetah-run-back: 200,
    cheetah-jump: 150}" seed=3
learn "[finger-spin,finger-turn-easy,finger-turn-hard,hopper-stand,hopper-hop-backwards]" \
    "{finger-spin: 160, finger-turn-easy: 150, finger-turn-hard: 150, hopper-stand: 220,
    hopper-hop-backwards: 76}" seed=3
collect scripted "[$reachers]" 350 seed=5
learn "[walker-walk-backwards,walker-run-backwards,finger-turn-easy,finger-turn-hard]" \
    "{walker-walk-backwards: 140, walker-run-backwards: 280, finger-turn-easy: 150,
    finger-turn-hard: 150}" seed=4 sac.random_episodes=0 "sac.prior=$planned_sources"
learn "[hopper-stand,hopper-hop,hopper-hop-backwards,fish-swim]" \
    "{hopper-stand: 220, hopper-hop: 140, hopper-hop-backwards: 140, fish-swim: 150}" seed=4 \
    sac.random_episodes=0 "sac.prior=$planned_sources"
cloned+=(pretrain.init_moments=data extract.learner.batch_size=128 extract.pool=49152 clone_decay=1.0)
cloned+=(extract.save_every=1000)
grow "$run/grown" 4 9000 40 20 20 0.2 "${cloned[@]}" pretrain.horizon.starts=[0,0.8] \
    extract.learner.bc.warmup_steps=6000
grow "$run/grown" 5 8000 40 20 20 0.1 "${cloned[@]}" pretrain.horizon.starts=[0,0.8] \
    extract.learner.bc.warmup_steps=4000
grow "$run/grown" 6 1500 20 20 20 0.5 "${cloned[@]}" pretrain.horizon.starts=[0,0.8] \
    extract.learner.bc.warmup_steps=4000
