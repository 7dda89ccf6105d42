# Sourced by the other scripts: makes .venv (or $GENREC_VENV) with pinned versions if it is missing.
# GENREC_PYTHON names the interpreter, 3.11 or later.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${GENREC_VENV:-$root/.venv}

find_python() {
  local candidate
  for candidate in "${GENREC_PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    [ -n "$candidate" ] || continue
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python 3.11 or later with the venv module was found. Install one, or set GENREC_PYTHON to its path." >&2
  exit 1
}

# install EXTRAS: install genrec from this checkout with these extras, unless that was done before.
install() {
  local extras=$1 stamp want
  stamp=$venv/.genrec-installed
  want=$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)
  if [ -x "$venv/bin/python" ] && grep -qxF "$extras $want" "$stamp" 2>/dev/null; then
    return
  fi
  if [ ! -x "$venv/bin/python" ]; then
    local python
    python=$(find_python)
    echo "Making the virtual environment $venv ..." >&2
    "$python" -m venv "$venv"
  fi
  echo "Installing pinned versions (a few minutes the first time) ..." >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c "$root/constraints.txt" -e "$root$extras"
  echo "$extras $want" >>"$stamp"
}
