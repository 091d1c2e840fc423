select run_date, customer_id from {{ ref('customer_segment') }} group by run_date, customer_id having count(*) > 1
