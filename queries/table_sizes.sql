-- Title:      Table sizes
-- Question:   what makes the run file large?
-- Grain:      one row per table
-- Key:        table_name
-- Parameters: none
-- Reads:      duckdb_tables(), pragma_storage_info()
-- Reference:  DuckDB documentation, storage
-- Caveat:     bytes are whole blocks of 256 KiB; a block that several tables share is divided among
--             them. The file's own bookkeeping is not in it.
WITH segments AS (
    FROM storage_of('runs')
    UNION ALL FROM storage_of('components')
    UNION ALL FROM storage_of('dictionaries')
    UNION ALL FROM storage_of('spliced_windows')
    UNION ALL FROM storage_of('classes')
    UNION ALL FROM storage_of('tokens')
    UNION ALL FROM storage_of('vocabulary')
    UNION ALL FROM storage_of('domains')
    UNION ALL FROM storage_of('replicate_groups')
    UNION ALL FROM storage_of('position_buckets')
    UNION ALL FROM storage_of('bins')
    UNION ALL FROM storage_of('documents')
    UNION ALL FROM storage_of('windows')
    UNION ALL FROM storage_of('position_rows')
    UNION ALL FROM storage_of('cell_counts')
    UNION ALL FROM storage_of('cell_sums')
    UNION ALL FROM storage_of('group_importance')
    UNION ALL FROM storage_of('component_importance')
    UNION ALL FROM storage_of('power_sums')
    UNION ALL FROM storage_of('spectrum_counts')
    UNION ALL FROM storage_of('density_counts')
    UNION ALL FROM storage_of('quantiles')
    UNION ALL FROM storage_of('sample_rows')
    UNION ALL FROM storage_of('extreme_rows')
    UNION ALL FROM storage_of('dense_rows')
    UNION ALL FROM storage_of('recorded_rows')
    UNION ALL FROM storage_of('head_attention_rows')
    UNION ALL FROM storage_of('logit_effects')
    UNION ALL FROM storage_of('closure')
    UNION ALL FROM storage_of('drops')
    UNION ALL FROM storage_of('pooled_strata')
    UNION ALL FROM storage_of('properties')
    UNION ALL FROM storage_of('token_property_lists')
    UNION ALL FROM storage_of('behaviours')
    UNION ALL FROM storage_of('uniform_marks')
    UNION ALL FROM storage_of('layer_coverages')
    UNION ALL FROM storage_of('token_counts')
    UNION ALL FROM storage_of('token_sums')
)
, blocks AS (
    -- a segment longer than one block goes on in additional ones
    SELECT DISTINCT table_name, block_id FROM (
        SELECT table_name, block_id FROM segments
        UNION ALL SELECT table_name, unnest(additional_block_ids) FROM segments
    ) WHERE block_id >= 0
)
, shares AS (
    SELECT table_name, 262144 / count(*) OVER (PARTITION BY block_id) AS bytes FROM blocks
)
, sizes AS (
    SELECT table_name, sum(bytes) AS bytes FROM shares GROUP BY table_name
)
SELECT table_name, tables.estimated_size AS n_rows, tables.column_count AS n_columns
    , coalesce(sizes.bytes, 0)::BIGINT AS bytes
FROM duckdb_tables() AS tables LEFT JOIN sizes USING (table_name)
WHERE tables.database_name = current_database() AND NOT tables.internal AND NOT tables.temporary
ORDER BY bytes DESC, table_name;
