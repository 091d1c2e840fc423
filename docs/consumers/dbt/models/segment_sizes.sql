{{ config(materialized='table') }}

select run_date, segment, count(*) as customers
from {{ ref('customer_segment') }}
group by run_date, segment
