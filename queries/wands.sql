-- Wayfair's WANDS: labels, joined with the queries and the names of the products. The files are tab-separated, without quoting.
-- A judgement without a text in the other files is a broken row.
SELECT
    labels.id AS id,
    queries.query AS origin_query,
    products.product_name AS candidate,
    labels.label AS label
FROM read_csv('label.csv', delim = '\t', quote = '', all_varchar = true) AS labels
LEFT JOIN read_csv('query.csv', delim = '\t', quote = '', all_varchar = true) AS queries USING (query_id)
LEFT JOIN read_csv('product.csv', delim = '\t', quote = '', all_varchar = true) AS products USING (product_id)
