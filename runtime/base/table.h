/*
 * table.h - a chained hash table whose links live inside the objects. It grows by doubling and never
 * shrinks; without memory it stays as it is and its chains get longer, so adding never fails.
 */
#ifndef MP_BASE_TABLE_H
#define MP_BASE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct mp__node {
    struct mp__node *next;
    uint64_t hash;
};

struct mp__table {
    struct mp__node **v;
    size_t n, cap;       /* objects; buckets, a power of two */
    struct mp__node *v1; /* the bucket of a table that never got memory */
};

void mp__table_init(struct mp__table *table);
void mp__table_fini(struct mp__table *table); /* the objects are their owner's */
void mp__table_add(struct mp__table *table, struct mp__node *node, uint64_t hash);
void mp__table_remove(struct mp__table *table, struct mp__node *node); /* it must be in */

/* The first of the chain that may hold `hash`; the rest by node->next. Compare hash, then key. */
static inline struct mp__node *mp__table_chain(const struct mp__table *table, uint64_t hash)
{
    return table->v != NULL ? table->v[hash & (table->cap - 1)] : table->v1;
}

#endif
