-- Title:      Table sizes
-- Question:   what makes the run file large?
-- Grain:      one row per table
-- Key:        table_name
-- Parameters: none
-- Reads:      duckdb_tables(), pragma_storage_info()
-- Reference:  DuckDB documentation, storage
-- Caveat:     bytes are whole blocks of 256 KiB; a block that several tables share is divided among them. The file's own
--             bookkeeping is not in it.
WITH segments AS (
    SELECT 'runs' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('runs')
    UNION ALL SELECT 'components' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('components')
    UNION ALL SELECT 'classes' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('classes')
    UNION ALL SELECT 'tokens' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('tokens')
    UNION ALL SELECT 'vocabulary' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('vocabulary')
    UNION ALL SELECT 'domains' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('domains')
    UNION ALL SELECT 'replicate_groups' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('replicate_groups')
    UNION ALL SELECT 'position_buckets' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('position_buckets')
    UNION ALL SELECT 'bins' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('bins')
    UNION ALL SELECT 'documents' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('documents')
    UNION ALL SELECT 'windows' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('windows')
    UNION ALL SELECT 'position_rows' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('position_rows')
    UNION ALL SELECT 'cell_counts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('cell_counts')
    UNION ALL SELECT 'cell_sums' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('cell_sums')
    UNION ALL SELECT 'group_importance' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('group_importance')
    UNION ALL SELECT 'component_importance' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('component_importance')
    UNION ALL SELECT 'power_sums' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('power_sums')
    UNION ALL SELECT 'spectrum_counts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('spectrum_counts')
    UNION ALL SELECT 'density_counts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('density_counts')
    UNION ALL SELECT 'quantiles' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('quantiles')
    UNION ALL SELECT 'sample_rows' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('sample_rows')
    UNION ALL SELECT 'extreme_rows' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('extreme_rows')
    UNION ALL SELECT 'dense_rows' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('dense_rows')
    UNION ALL SELECT 'recorded_rows' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('recorded_rows')
    UNION ALL SELECT 'head_attention_rows' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('head_attention_rows')
    UNION ALL SELECT 'logit_effects' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('logit_effects')
    UNION ALL SELECT 'closure' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('closure')
    UNION ALL SELECT 'drops' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('drops')
    UNION ALL SELECT 'pooled_strata' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('pooled_strata')
    UNION ALL SELECT 'properties' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('properties')
    UNION ALL SELECT 'token_property_lists' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('token_property_lists')
    UNION ALL SELECT 'behaviours' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('behaviours')
    UNION ALL SELECT 'uniform_marks' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('uniform_marks')
    UNION ALL SELECT 'layer_coverages' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('layer_coverages')
    UNION ALL SELECT 'token_counts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('token_counts')
    UNION ALL SELECT 'token_sums' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('token_sums')
)
, blocks AS (
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
SELECT table_name, t.estimated_size AS n_rows, t.column_count AS n_columns, coalesce(s.bytes, 0)::BIGINT AS bytes
FROM duckdb_tables() t LEFT JOIN sizes s USING (table_name)
WHERE t.database_name = current_database() AND NOT t.internal AND NOT t.temporary
ORDER BY bytes DESC, table_name;
