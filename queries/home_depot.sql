-- Home Depot's search relevance: the titles, followed by the first 200 characters of the descriptions.
SELECT
    train.id AS id,
    train.search_term AS origin_query,
    concat_ws(' ', train.product_title, left(descriptions.product_description, 200)) AS candidate,
    train.relevance AS label
FROM read_csv('train.csv', encoding = 'latin-1') AS train
LEFT JOIN read_csv('product_descriptions.csv', encoding = 'latin-1') AS descriptions USING (product_uid)
