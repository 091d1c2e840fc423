-- Roles and databases of the Iceberg catalog and of MLflow, each with what it needs and no more. As a superuser, once:
--   export BIZLLM_JOB_PASSWORD=… BIZLLM_READER_PASSWORD=… MLFLOW_PASSWORD=…
--   psql -X -v ON_ERROR_STOP=1 -d postgres -f infra/catalog/databases.sql
-- Passwords come from these variables only. psql 14 or later.
\getenv job_password BIZLLM_JOB_PASSWORD
\getenv reader_password BIZLLM_READER_PASSWORD
\getenv mlflow_password MLFLOW_PASSWORD
set password_encryption = 'scram-sha-256';

create role bizllm_owner nologin;                                        -- owns the catalog's tables
create role bizllm_job login password :'job_password' connection limit 100;       -- heads, and whoever runs bizllm
create role bizllm_reader login password :'reader_password' connection limit 100; -- other engines, and people
create role mlflow login password :'mlflow_password' connection limit 50;         -- MLflow's server, nobody else

create database bizllm_catalog owner bizllm_owner template template0 encoding 'UTF8';
create database mlflow owner mlflow template template0 encoding 'UTF8';
revoke all on database bizllm_catalog, mlflow from public;
grant connect on database bizllm_catalog to bizllm_job, bizllm_reader;
-- A session that hangs holds no lock for ever. A commit is one row.
alter role bizllm_job set statement_timeout = '60s';
alter role bizllm_job set idle_in_transaction_session_timeout = '60s';
alter role bizllm_reader set default_transaction_read_only = on;
alter role bizllm_reader set statement_timeout = '60s';

\connect mlflow
revoke all on schema public from public;
alter schema public owner to mlflow;

\connect bizllm_catalog
revoke all on schema public from public;
alter schema public owner to bizllm_owner;
grant usage on schema public to bizllm_job, bizllm_reader;
set role bizllm_owner;
-- PyIceberg's own tables (a test compares them), so that no job may create any.
create table iceberg_tables (
    catalog_name varchar(255) not null,
    table_namespace varchar(255) not null,
    table_name varchar(255) not null,
    metadata_location varchar(1000),
    previous_metadata_location varchar(1000),
    iceberg_type varchar(5),
    primary key (catalog_name, table_namespace, table_name)
);
create table iceberg_namespace_properties (
    catalog_name varchar(255) not null,
    namespace varchar(255) not null,
    property_key varchar(255) not null,
    property_value varchar(1000) not null,
    primary key (catalog_name, namespace, property_key)
);
grant select, insert, update, delete on iceberg_tables, iceberg_namespace_properties to bizllm_job;
grant select on iceberg_tables, iceberg_namespace_properties to bizllm_reader;
