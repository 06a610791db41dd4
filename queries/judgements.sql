-- A judgement list of query, docid and rating (Quepid's export), joined with a catalogue in JSON Lines.
-- A judgement without a text in the other files is a broken row.
SELECT
    judgements.query AS origin_query,
    catalogue.title AS candidate,
    judgements.rating AS label
FROM read_csv('judgements.csv', all_varchar = true) AS judgements
LEFT JOIN read_json('catalogue.jsonl', format = 'newline_delimited', columns = {id: 'VARCHAR', title: 'VARCHAR'}) AS catalogue
    ON judgements.docid = catalogue.id
