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
    SELECT 'runs' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('runs')
    UNION ALL SELECT 'components', block_id, additional_block_ids
    FROM pragma_storage_info('components')
    UNION ALL SELECT 'classes', block_id, additional_block_ids FROM pragma_storage_info('classes')
    UNION ALL SELECT 'tokens', block_id, additional_block_ids FROM pragma_storage_info('tokens')
    UNION ALL SELECT 'vocabulary', block_id, additional_block_ids
    FROM pragma_storage_info('vocabulary')
    UNION ALL SELECT 'domains', block_id, additional_block_ids FROM pragma_storage_info('domains')
    UNION ALL SELECT 'replicate_groups', block_id, additional_block_ids
    FROM pragma_storage_info('replicate_groups')
    UNION ALL SELECT 'position_buckets', block_id, additional_block_ids
    FROM pragma_storage_info('position_buckets')
    UNION ALL SELECT 'bins', block_id, additional_block_ids FROM pragma_storage_info('bins')
    UNION ALL SELECT 'documents', block_id, additional_block_ids
    FROM pragma_storage_info('documents')
    UNION ALL SELECT 'windows', block_id, additional_block_ids FROM pragma_storage_info('windows')
    UNION ALL SELECT 'position_rows', block_id, additional_block_ids
    FROM pragma_storage_info('position_rows')
    UNION ALL SELECT 'cell_counts', block_id, additional_block_ids
    FROM pragma_storage_info('cell_counts')
    UNION ALL SELECT 'cell_sums', block_id, additional_block_ids
    FROM pragma_storage_info('cell_sums')
    UNION ALL SELECT 'group_importance', block_id, additional_block_ids
    FROM pragma_storage_info('group_importance')
    UNION ALL SELECT 'component_importance', block_id, additional_block_ids
    FROM pragma_storage_info('component_importance')
    UNION ALL SELECT 'power_sums', block_id, additional_block_ids
    FROM pragma_storage_info('power_sums')
    UNION ALL SELECT 'spectrum_counts', block_id, additional_block_ids
    FROM pragma_storage_info('spectrum_counts')
    UNION ALL SELECT 'density_counts', block_id, additional_block_ids
    FROM pragma_storage_info('density_counts')
    UNION ALL SELECT 'quantiles', block_id, additional_block_ids
    FROM pragma_storage_info('quantiles')
    UNION ALL SELECT 'sample_rows', block_id, additional_block_ids
    FROM pragma_storage_info('sample_rows')
    UNION ALL SELECT 'extreme_rows', block_id, additional_block_ids
    FROM pragma_storage_info('extreme_rows')
    UNION ALL SELECT 'dense_rows', block_id, additional_block_ids
    FROM pragma_storage_info('dense_rows')
    UNION ALL SELECT 'recorded_rows', block_id, additional_block_ids
    FROM pragma_storage_info('recorded_rows')
    UNION ALL SELECT 'head_attention_rows', block_id, additional_block_ids
    FROM pragma_storage_info('head_attention_rows')
    UNION ALL SELECT 'logit_effects', block_id, additional_block_ids
    FROM pragma_storage_info('logit_effects')
    UNION ALL SELECT 'closure', block_id, additional_block_ids FROM pragma_storage_info('closure')
    UNION ALL SELECT 'drops', block_id, additional_block_ids FROM pragma_storage_info('drops')
    UNION ALL SELECT 'pooled_strata', block_id, additional_block_ids
    FROM pragma_storage_info('pooled_strata')
    UNION ALL SELECT 'properties', block_id, additional_block_ids
    FROM pragma_storage_info('properties')
    UNION ALL SELECT 'token_property_lists', block_id, additional_block_ids
    FROM pragma_storage_info('token_property_lists')
    UNION ALL SELECT 'behaviours', block_id, additional_block_ids
    FROM pragma_storage_info('behaviours')
    UNION ALL SELECT 'uniform_marks', block_id, additional_block_ids
    FROM pragma_storage_info('uniform_marks')
    UNION ALL SELECT 'layer_coverages', block_id, additional_block_ids
    FROM pragma_storage_info('layer_coverages')
    UNION ALL SELECT 'token_counts', block_id, additional_block_ids
    FROM pragma_storage_info('token_counts')
    UNION ALL SELECT 'token_sums', block_id, additional_block_ids
    FROM pragma_storage_info('token_sums')
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
SELECT table_name, tables.estimated_size AS n_rows, tables.column_count AS n_columns
    , coalesce(sizes.bytes, 0)::BIGINT AS bytes
FROM duckdb_tables() AS tables LEFT JOIN sizes USING (table_name)
WHERE tables.database_name = current_database() AND NOT tables.internal AND NOT tables.temporary
ORDER BY bytes DESC, table_name;
