#!/bin/sh
# A tour of mp with two models of yours:  examples/tour.sh BASE_MODEL FINE_TUNE [DIRECTORY]
# Each is a directory of files. The repository is made in DIRECTORY (default: ./models).
set -eu
base=$(cd "${1:?the base model}" && pwd)
tuned=$(cd "${2:?a fine-tune of it}" && pwd)
where=${3:-models}

show() { printf '\n$ mp %s\n' "$*"; mp "$@"; }

show init "$where"
cd "$where"

# Two models, each on a branch of its own; the second leans on the first.
show commit "$base" -m "Base model"
show commit "$tuned" -b tuned --base main -m "Fine-tune"
show branch
show log tuned

# What differs, and what it costs to keep.
show diff main tuned
show du

# The files again, bit for bit.
show checkout tuned --to out
for file in out/*; do cmp "$file" "$tuned/${file##*/}"; done
rm -r out

# As the model at hand: change it, commit it, go back.
show checkout tuned
echo "Trained on too little data." >NOTES.md
show status
show commit -m "Notes"
show log --oneline
show reset --hard HEAD~1
show reflog tuned
show fsck
