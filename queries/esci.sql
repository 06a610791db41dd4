-- Amazon's Shopping Queries (ESCI), train: the examples of the small version, with the titles of the products.
-- A product is identified by its id and its locale. An example without a product is reported as a broken row.
SELECT
    examples.example_id AS id,
    examples.product_locale AS language,
    examples.query AS origin_query,
    products.product_title AS candidate,
    examples.esci_label AS label
FROM read_parquet('shopping_queries_dataset_examples.parquet') AS examples
LEFT JOIN read_parquet('shopping_queries_dataset_products.parquet') AS products USING (product_id, product_locale)
WHERE examples.small_version = 1 AND examples.split = 'train'
