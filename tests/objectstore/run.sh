#!/usr/bin/env bash
# The S3 tests, the lock's and a whole night against a full object store: Ceph (one monitor, one OSD in memory, radosgw),
# from Debian's packages. All state lies in a temporary folder; nothing runs when it ends. PYTHON: the interpreter.
# Writes benchmarks/results/test-objectstore.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}

if ! { command -v radosgw && command -v ceph-mon && command -v ceph-osd; } >/dev/null; then
  echo "== packages: ceph-mon ceph-osd ceph-common radosgw"
  as_root=(); [[ $(id -u) == 0 ]] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
    ceph-mon ceph-osd ceph-common radosgw >/dev/null
fi

state=$(mktemp -d)
stop() {
  local file
  for file in "$state"/run/*.pid; do
    [[ -f $file ]] && kill "$(<"$file")" 2>/dev/null || true
  done
  for _ in {1..40}; do
    pgrep -F <(cat "$state"/run/*.pid 2>/dev/null) >/dev/null 2>&1 || break
    sleep 0.25
  done
  rm -rf "$state"
}
trap stop EXIT
free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
monitor=$(free_port) gateway=$(free_port)

mkdir -p "$state"/{mon,osd,rgw,run}
cluster=$(</proc/sys/kernel/random/uuid) disk=$(</proc/sys/kernel/random/uuid)
cat >"$state/ceph.conf" <<CONF
[global]
fsid = $cluster
mon host = v2:127.0.0.1:$monitor/0
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
mon data = $state/mon
osd data = $state/osd
rgw data = $state/rgw
run dir = $state/run
crash dir = $state/run
pid file = $state/run/\$name.pid
log file = $state/run/\$name.log
admin socket = $state/run/\$name.asok
CONF
ceph=(timeout 60 ceph -c "$state/ceph.conf")
echo "== ceph in $state"
{
  monmaptool --create --fsid "$cluster" --addv a "[v2:127.0.0.1:$monitor]" "$state/monmap"
  ceph-mon -c "$state/ceph.conf" -i a --mkfs --monmap "$state/monmap"
  ceph-mon -c "$state/ceph.conf" -i a
  "${ceph[@]}" osd new "$disk"
  ceph-osd -c "$state/ceph.conf" -i 0 --mkfs --osd-uuid "$disk"
  ceph-osd -c "$state/ceph.conf" -i 0
} >"$state/run/start.log" 2>&1 || { cat "$state/run/start.log" >&2; exit 1; }
for _ in {1..60}; do
  "${ceph[@]}" osd stat 2>/dev/null | grep -q '1 up' && break
  sleep 0.5
done
# As client.admin: the monitor asks no keys of anyone.
timeout 60 radosgw-admin -c "$state/ceph.conf" user create --uid tests --display-name tests \
  --access-key testing --secret-key testing >"$state/run/user.log" 2>&1
radosgw -c "$state/ceph.conf" -n client.admin --rgw-frontends "beast endpoint=127.0.0.1:$gateway" \
  --pid-file "$state/run/radosgw.pid" >>"$state/run/start.log" 2>&1
for _ in {1..120}; do
  curl -sf -m 5 "http://127.0.0.1:$gateway" >/dev/null && break
  sleep 0.5
done

mkdir -p build
export BIZLLM_TEST_S3="http://127.0.0.1:$gateway"
if [[ -n ${COMMAND:-} ]]; then # something else than the tests: COMMAND='aws …' with its address in BIZLLM_TEST_S3
  bash -c "$COMMAND"
  exit
fi
status=0
"$python" -m pytest -q -m "objectstore and not slow" --junitxml=build/test-objectstore.xml \
  tests/tables/test_storage.py tests/tables/test_source.py tests/tables/test_warehouse_s3.py \
  tests/tables/test_storage_faults.py tests/jobs/test_object_store.py tests/jobs/test_store_faults.py \
  tests/exports/test_parquet.py "$@" || status=$?
page=benchmarks/results/test-objectstore.md
"$python" .ci/slow_results.py build/test-objectstore.xml "$page" "make test-objectstore" \
  "Store: Ceph $(radosgw --version | cut -d' ' -f3) (radosgw over one OSD in memory), which checks signatures."
"$python" tests/objectstore/features.py "$BIZLLM_TEST_S3" >>"$page"
exit "$status"
