{{ config(materialized='view') }}

select * from {{ ref('customer_segment') }}
where run_date = (select max(run_date) from {{ ref('customer_segment') }})
