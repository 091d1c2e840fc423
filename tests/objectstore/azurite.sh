#!/usr/bin/env bash
# The abfs:// tests and a whole night against Azurite, Microsoft's emulator of Azure's blob service, from npm.
# Nothing runs when it ends. PYTHON: the interpreter. Writes benchmarks/results/test-azurite.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
version=3.35.0
installed=${XDG_CACHE_HOME:-$HOME/.cache}/bizllm/azurite-$version

if [[ ! -x $installed/node_modules/.bin/azurite-blob ]]; then
  if ! command -v npm >/dev/null; then
    as_root=(); [[ $(id -u) == 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends npm >/dev/null
  fi
  echo "== azurite $version into $installed"
  npm install --silent --no-audit --no-fund --prefix "$installed" "azurite@$version" >/dev/null
fi

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$installed/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$port" --inMemoryPersistence \
  --skipApiVersionCheck --disableTelemetry --silent >/dev/null &
azurite=$!
trap 'kill "$azurite" 2>/dev/null || true; wait "$azurite" 2>/dev/null || true' EXIT
for _ in {1..100}; do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.2
done

mkdir -p build
export BIZLLM_TEST_AZURITE="http://127.0.0.1:$port/devstoreaccount1"
status=0
"$python" -m pytest -q -m azurite --junitxml=build/test-azurite.xml \
  tests/tables/test_storage.py tests/tables/test_azure.py tests/jobs/test_azure_night.py "$@" || status=$?
"$python" .ci/slow_results.py build/test-azurite.xml benchmarks/results/test-azurite.md "make test-azurite" \
  "Store: Azurite $version, in memory: an account without a hierarchical namespace."
exit "$status"
