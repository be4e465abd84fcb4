/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_yaml - any bytes through the YAML reader, or, when they start with '{', through the JSON
 * reader. */
#include "frontend/yaml.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Follows every alias; the reader's limits bound how far that goes. */
static uint32_t count_nodes(const kf_yaml_node *node)
{
    uint32_t n = 1;
    for (uint32_t i = 0; node->kind == KF_YAML_SEQ && i < node->n; i++)
        n += count_nodes(node->u.items[i]);
    for (uint32_t i = 0; node->kind == KF_YAML_MAP && i < node->n; i++)
        n += count_nodes(node->u.pairs[i].key) + count_nodes(node->u.pairs[i].value);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kf_arena *arena = kf_arena_create("fuzz");
    kf_diags *diags = kf_diags_create(arena);
    kf_str text = {(const char *)data, (uint32_t)size};
    uint32_t file = kf_diags_add_file(diags, KF_STR("fuzz"), text);
    kf_yaml_node *root = size && data[0] == '{'
                             ? kf_json_parse(arena, diags, file, text, KF_ORIGIN_CONFIG)
                             : kf_yaml_parse(arena, diags, file, text, KF_ORIGIN_SPEC);
    /* Either a tree or an error; the expanded size is known and bounded. */
    if ((root == NULL) != (kf_diags_errors(diags) > 0))
        abort();
    if (root && count_nodes(root) != root->n_expanded)
        abort();
    kf_sbuf out = {.arena = arena};
    kf_diags_json(diags, &out);
    kf_arena_destroy(arena);
    return 0;
}
