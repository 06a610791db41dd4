-- Wayfair's WANDS for the task qc: a category is relevant to a query if most of its judged products are exact matches.
-- Products without a category are left out.
SELECT
    concat(labels.query_id, ':', products."category hierarchy") AS id,
    any_value(queries.query ORDER BY queries.query) AS origin_query,
    products."category hierarchy" AS candidate,
    count(*) FILTER (labels.label = 'Exact') * 2 > count(*) AS label
FROM read_csv('label.csv', delim = '\t') AS labels
LEFT JOIN read_csv('query.csv', delim = '\t') AS queries USING (query_id)
LEFT JOIN read_csv('product.csv', delim = '\t') AS products USING (product_id)
WHERE products."category hierarchy" IS NOT NULL
GROUP BY labels.query_id, products."category hierarchy"
