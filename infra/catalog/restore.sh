#!/usr/bin/env bash
# Puts a dump of backup.sh in the place of the database of the same name, which stays under another name. The dump is
# read into a database of its own first; only when it is whole are the names changed. Nothing may be connected then.
#   infra/catalog/restore.sh DATABASE DUMP         as a superuser, or as the database's owner with CREATEDB
set -euo pipefail
database=${1:?usage: restore.sh DATABASE DUMP} dump=${2:?usage: restore.sh DATABASE DUMP}
now=$(date -u +%Y%m%d%H%M%S)
sql() { psql -X -q -v ON_ERROR_STOP=1 -v database="$database" -v fresh="${database}_$now" -v old="${database}_before_$now" "$@"; }
made=
trap '[[ -z $made ]] || dropdb --if-exists "$made"' EXIT
owner=$(sql -d postgres -At <<<"select pg_get_userbyid(datdba) from pg_database where datname = :'database'")
[[ -n $owner ]] || { echo "restore.sh: there is no database $database; make it by databases.sql first" >&2; exit 2; }
createdb --template=template0 --encoding=UTF8 --owner="$owner" "${database}_$now"
made=${database}_$now
pg_restore --exit-on-error --single-transaction --dbname="$made" "$dump"
# Rights on the database itself are not in a dump.
sql -d postgres <<'SQL'
select format('revoke all on database %I from public', :'fresh') \gexec
select format('grant connect on database %I to %s', :'fresh', a.grantee::regrole)
  from pg_database d, aclexplode(d.datacl) a
 where d.datname = :'database' and a.privilege_type = 'CONNECT' and a.grantee not in (0, d.datdba) \gexec
select format('alter database %I connection limit 0', :'database') \gexec
select count(pg_terminate_backend(pid)) as ended from pg_stat_activity where datname = :'database' \g /dev/null
begin;
select format('alter database %I rename to %I', :'database', :'old') \gexec
select format('alter database %I rename to %I', :'fresh', :'database') \gexec
commit;
SQL
made=
echo "$database is as of $(basename "$dump"); what it was is ${database}_before_$now, which takes no connections"
