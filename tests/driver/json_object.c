/* SPDX-License-Identifier: Apache-2.0 */
/* json_object - standard input is exactly one JSON object whose "schema" is the argument.
 *
 *   kerf check SPEC --json | json_object kerf.check.1 [KEY...]     each KEY must be there too
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    json_error_t error;
    json_t *root = json_loadf(stdin, JSON_REJECT_DUPLICATES, &error);

    if (!root || argc < 2) {
        fprintf(stderr, "json_object: line %d: %s\n", error.line, root ? "no schema" : error.text);
        return 1;
    }
    const char *schema = json_string_value(json_object_get(root, "schema"));
    if (!schema || strcmp(schema, argv[1])) {
        fprintf(stderr, "json_object: schema is %s\n", schema ? schema : "absent");
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        if (json_object_get(root, argv[i]))
            continue;
        fprintf(stderr, "json_object: no \"%s\"\n", argv[i]);
        return 1;
    }
    json_decref(root);
    return 0;
}
