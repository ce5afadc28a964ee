/* list.h - circular doubly linked lists; links live inside the objects, so nothing allocates. */
#ifndef MP_BASE_LIST_H
#define MP_BASE_LIST_H

#include <stddef.h>

struct mp__link {
    struct mp__link *next, *prev; /* both NULL: on no list */
};

#define MP__ENTRY(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void mp__list_init(struct mp__link *head)
{
    head->next = head->prev = head;
}

static inline int mp__list_empty(const struct mp__link *head)
{
    return head->next == head;
}

static inline int mp__linked(const struct mp__link *link)
{
    return link->next != NULL;
}

static inline void mp__list_insert(struct mp__link *before, struct mp__link *link)
{
    link->next = before;
    link->prev = before->prev;
    before->prev->next = link;
    before->prev = link;
}

static inline void mp__list_push(struct mp__link *head, struct mp__link *link)
{
    mp__list_insert(head, link);
}

static inline void mp__list_unshift(struct mp__link *head, struct mp__link *link)
{
    mp__list_insert(head->next, link);
}

/* Harmless for a link on no list. */
static inline void mp__list_remove(struct mp__link *link)
{
    if (link->next == NULL)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = NULL;
}

static inline struct mp__link *mp__list_shift(struct mp__link *head)
{
    struct mp__link *link = head->next;

    if (link == head)
        return NULL;
    mp__list_remove(link);
    return link;
}

/* All of `from` goes to the end of `to`. */
static inline void mp__list_move(struct mp__link *from, struct mp__link *to)
{
    if (mp__list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    mp__list_init(from);
}

#endif
