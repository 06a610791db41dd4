-- Requests of Elasticsearch's ranking evaluation, joined with documents as `_id` and `_source`, both in JSON Lines.
-- A judgement without a text in the other files is a broken row.
WITH ratings AS (
    SELECT requests.id AS query_id, requests.request ->> '$.query.match.title' AS query, unnest(requests.ratings) AS rating
    FROM read_json(
        'ratings.jsonl',
        format = 'newline_delimited',
        columns = {id: 'VARCHAR', request: 'JSON', ratings: 'STRUCT(_id VARCHAR, rating INTEGER)[]'}
    ) AS requests
)

SELECT
    concat(ratings.query_id, ':', ratings.rating._id) AS id,
    ratings.query AS origin_query,
    catalogue._source.title AS candidate,
    ratings.rating.rating AS label
FROM ratings
LEFT JOIN read_json(
    'catalogue.jsonl', format = 'newline_delimited', columns = {_id: 'VARCHAR', _source: 'STRUCT(title VARCHAR)'}
) AS catalogue
    ON ratings.rating._id = catalogue._id
