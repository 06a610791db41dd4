-- Wayfair's WANDS: the labels, with the texts of the queries and the names of the products.
-- The files are tab-separated, with quotes around texts that contain quotes.
-- A label without a query or a product is reported as a broken row.
SELECT
    labels.id AS id,
    queries.query AS origin_query,
    products.product_name AS candidate,
    labels.label AS label
FROM read_csv('label.csv', delim = '\t') AS labels
LEFT JOIN read_csv('query.csv', delim = '\t') AS queries USING (query_id)
LEFT JOIN read_csv('product.csv', delim = '\t') AS products USING (product_id)
