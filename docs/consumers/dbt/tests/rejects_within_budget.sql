-- Rejects of the runs that made the tables' nights; more than 1 % of a night fails, as the job's own budget does.
with rejected as (
    select r.run_date, count(*) as rows
    from {{ source('demo', 'customer_segment__rejects') }} r
    where r.code <> 'empty'
      and (r.run_date, r.run_id) in (select run_date, run_id from {{ ref('customer_segment') }})
    group by r.run_date
)

select rejected.run_date
from rejected join (select run_date, count(*) as rows from {{ ref('customer_segment') }} group by run_date) as answered
    using (run_date)
where rejected.rows > 0.01 * (rejected.rows + answered.rows)
