-- The body of a request to the ranking evaluation API of Elasticsearch or OpenSearch, with the titles of documents in JSON Lines
-- (_id, _source). The text of a query is in the request: adapt its path, here query.match.title.
-- A rating of a document that the catalogue lacks is reported as a broken row.
WITH requests AS (
    SELECT unnest(requests) AS entry
    FROM read_json(
        'rank_eval.json',
        columns = {requests: 'STRUCT(id VARCHAR, request JSON, ratings STRUCT(_id VARCHAR, rating INTEGER)[])[]'}
    )
),

ratings AS (
    SELECT
        entry.id AS query_id,
        entry.request ->> '$.query.match.title' AS query,
        unnest(entry.ratings) AS rating
    FROM requests
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
