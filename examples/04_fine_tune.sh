#!/usr/bin/env bash
# Prepare, train, evaluate and recommend with reasons; then train again on new events and new items.
#
#   examples/04_fine_tune.sh [FOLDER]
#
# 2,000 titles take a few minutes on two cores; TARGETS=50000 is about two passes over the train part.
set -euo pipefail
out=${1:-fine_tune}
targets=${TARGETS:-2000} users=${USERS:-30} replay=${REPLAY:-20} threads=${THREADS:-1}
quick=(--threads "$threads" --behaviors buy --tune-users "${TUNE:-100}")
data=$(python -c 'import genrec; print(genrec.__path__[0])')/data/samples/online_retail_demo
mkdir -p "$out"

genrec prepare --items "$data/items.csv.gz" --interactions "$data/interactions.csv.gz" \
  --name online_retail_demo --out "$out/shop"
genrec train "$out/shop" "${quick[@]}" --protocol demo-v1 \
  --max-targets "$targets" --eval-users "$users" --eval-every "$targets" --out "$out/one"
genrec evaluate "$out/shop" --run "$out/one" --threads "$threads" --protocol demo-v1 \
  --split validation --users "$users" --against popular,markov
genrec recommend "$out/shop" --run "$out/one" --threads "$threads" --user 12493 -k 3 --explain

cat > "$out/new.csv" <<'END'
user_id,item_id,timestamp,behavior,invoice
12493,GLASS1,2011-12-12T10:00:00,buy,after1
12748,GLASS1,2011-12-12T11:00:00,buy,after2
12748,GLASS2,2011-12-12T11:00:00,buy,after2
END
cat > "$out/new_items.csv" <<'END'
item_id,title
GLASS1,RED GLASS VASE
GLASS2,BLUE GLASS VASE
END
genrec train "$out/shop" "${quick[@]}" --from "$out/one" \
  --interactions "$out/new.csv" --items "$out/new_items.csv" --replay "$replay" --epochs 1 \
  --out "$out/two"
genrec recommend "$out/two/data" --run "$out/two" --threads "$threads" --user 12493 -k 3
genrec score "$out/two/data" --run "$out/two" --threads "$threads" --user 12493 \
  --items <(printf 'GLASS1\nGLASS2\n')
