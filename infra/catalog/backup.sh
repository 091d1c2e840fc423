#!/usr/bin/env bash
# A dump of a database (bizllm_catalog or mlflow) as of one moment, kept only when it can be read again.
#   infra/catalog/backup.sh DATABASE FOLDER        PGHOST, PGUSER, PGPASSFILE and the like say how it is reached
set -euo pipefail
database=${1:?usage: backup.sh DATABASE FOLDER} folder=${2:?usage: backup.sh DATABASE FOLDER}
umask 077 # MLflow's tables may hold what people wrote into tags
target=$folder/$database-$(date -u +%Y%m%dT%H%M%SZ).dump
trap 'rm -f "$target.part"' EXIT
pg_dump --format=custom --no-password --lock-wait-timeout=30s --file="$target.part" "$database"
listed=$(pg_restore --list "$target.part")
[[ $listed == *"TABLE DATA"* ]]
mv "$target.part" "$target"
echo "$target"
