#include "base/table.h"

#include <stdlib.h>

void mp__table_init(struct mp__table *table)
{
    *table = (struct mp__table){0};
}

void mp__table_fini(struct mp__table *table)
{
    free(table->v);
    mp__table_init(table);
}

static struct mp__node **bucket(struct mp__table *table, uint64_t hash)
{
    return table->v != NULL ? &table->v[hash & (table->cap - 1)] : &table->v1;
}

static void grow(struct mp__table *table)
{
    size_t cap = table->cap ? table->cap * 2 : 16;
    struct mp__node **v = calloc(cap, sizeof(struct mp__node *));

    if (v == NULL)
        return;
    for (size_t i = 0; i < (table->cap ? table->cap : 1); i++) {
        struct mp__node *next = NULL;
        for (struct mp__node *n = table->v != NULL ? table->v[i] : table->v1; n != NULL; n = next) {
            next = n->next;
            n->next = v[n->hash & (cap - 1)];
            v[n->hash & (cap - 1)] = n;
        }
    }
    free(table->v);
    table->v = v;
    table->v1 = NULL;
    table->cap = cap;
}

void mp__table_add(struct mp__table *table, struct mp__node *node, uint64_t hash)
{
    if (table->n >= table->cap)
        grow(table);
    struct mp__node **at = bucket(table, hash);
    node->hash = hash;
    node->next = *at;
    *at = node;
    table->n++;
}

void mp__table_remove(struct mp__table *table, struct mp__node *node)
{
    struct mp__node **at = bucket(table, node->hash);

    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    node->next = NULL;
    table->n--;
}
