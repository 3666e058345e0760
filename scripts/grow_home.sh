#!/usr/bin/env bash
# Growth on a rented machine, a GPU beside many cores, and its results in pieces small enough to carry
# home (the agents need the extra sbx): scripts/grow_home.sh [SUITE] [RUN] [SETTINGS of pwm grow ...].
# RUN/home/part.* are 4 MB each: world model, policies, a sample of the data, card, scores and curves;
# `cat part.* | tar x` puts them together. The same command goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-mt80} run=${2:-runs/rented}

"${PWM:-.venv/bin/pwm}" grow grow=gpu suite="$suite" out="$run" "${@:3}"
"${PYTHON:-.venv/bin/python}" scripts/ship.py --run "$run" --out "$run/shipping/$suite" --place "checkpoints/$suite"
rm -rf "$run/home" && mkdir "$run/home"
tar -C "$run" -c rounds.json rounds.csv timing.json curves -C shipping "$suite" | split -b 4M -d -a 3 - "$run/home/part."
