#!/usr/bin/env bash
# Something like a pod, for tests/cluster/test_pod.py, as root:
#   unshare --mount --net --uts --pid --fork --mount-proc pod.sh CODE VENV BASE JOB TOKEN COMMAND…
# Every file system is read-only but the folders that $WRITABLE names; user 1000 without a capability; a network of its own;
# JOB and TOKEN in /etc/bizllm and /etc/bizllm-token, laid as Kubernetes lays ConfigMaps and Secrets; the code in /media and
# its Python in /opt, which stands on the one in BASE. Nothing of all this outlives the command.
set -euo pipefail
code=$1 venv=$2 base=$3 job=$4 token=$5
shift 5

volume() { # FILE FOLDER: a file behind links
  mkdir -p "$2/..2026_06_30"
  cp "$1" "$2/..2026_06_30/"
  ln -s ..2026_06_30 "$2/..data"
  ln -s "..data/$(basename "$1")" "$2/$(basename "$1")"
  chown -R root:1000 "$2"
  chmod -R u=rwX,g=rX,o= "$2"
}

mount --make-rprivate /
hostname head
ip link set lo up
ip link add pod0 type veth peer name host0
ip addr add 10.244.0.7/24 dev pod0
ip link set pod0 up
ip link set host0 up
ip route add default via 10.244.0.1
mount --bind "$code" /media
mount --bind "$venv" /opt
mount -t tmpfs none /srv
cp -a /etc /srv/etc
printf '127.0.0.1 localhost\n10.244.0.7 head bizllm-head-svc\n' >/srv/etc/hosts
echo 'nameserver 127.0.0.1' >/srv/etc/resolv.conf # nobody is there, and says so at once
volume "$job" /srv/etc/bizllm
volume "$token" /srv/etc/bizllm-token
if [[ $base == /root/* ]]; then # which only root may enter
  mkdir /srv/base
  mount --bind "$base" /srv/base
  mount -t tmpfs -o mode=755 none /root
  mkdir -p "$base"
  mount --bind /srv/base "$base"
fi
mount --bind /srv/etc /etc
mount -t tmpfs -o mode=755 none /home
mkdir /home/ray
for folder in $WRITABLE; do # emptyDir with fsGroup 1000
  mount -t tmpfs -o mode=2777,gid=1000 none "$folder"
done
while read -r _ _ _ _ place _; do
  case " $WRITABLE " in *" $place "*) continue ;; esac
  case $place in /proc* | /sys* | /dev*) continue ;; esac
  mount -o remount,bind,ro "$place" 2>/dev/null || true # hidden under another
done < <(tac /proc/self/mountinfo)
cd / # the folder that this was begun in may be hidden by now, and processes that Ray's dashboard forks go to it by name
exec setpriv --reuid 1000 --regid 1000 --groups 1000 --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
