-- Every night, once. A night that was rerun or rolled back has another run_id than here: it is taken again, whole.
{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='run_date') }}

select customer_id, segment, previous_segment, confidence, run_date, run_id, produced_at
from {{ source('demo', 'customer_segment') }}
{% if is_incremental() %}
where (run_date, run_id) not in (select distinct run_date, run_id from {{ this }})
{% endif %}
